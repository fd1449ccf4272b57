"""Mistakes inside one document: YAML, header, schema."""

from fleets.mutations import ALONE, FLEET, NODE, R1, STABLE, WORKERS, Case, put, write

CASES = [
    # The YAML itself.
    Case(
        "duplicate key",
        put(NODE, "  address:", "  address: 192.0.2.99\n  address:"),
        "yaml",
        NODE,
        "192.0.2.21",
        "twice",
    ),
    Case("broken YAML", put(NODE, "  pool: workers", "  pool: [workers"), "yaml", NODE, "address", "not valid YAML"),
    Case("anchor", put(NODE, "pool: workers", "pool: &p workers"), "yaml", NODE, "&p", "anchor"),
    Case("not UTF-8", write("nodes/x.yaml", b"kind: \xff"), "yaml", "nodes/x.yaml", "kind", "not UTF-8"),
    Case("too large", write("nodes/x.yaml", b"#" * (1 << 20) + b"\n"), "yaml", "nodes/x.yaml", "", "at most"),
    Case("two documents", put(WORKERS, "  labels:", "---\n  labels:"), "yaml", WORKERS, "---", "second document"),
    Case(
        "empty document", write("nodes/x.yaml", "# nothing\n"), "empty-document", "nodes/x.yaml", "", "a Node belongs"
    ),
    Case("all digits hash", put(R1, f'"{"20" * 32}"', "20" * 32), "yaml", R1, "rootHash", ""),
    # The header.
    Case("wrong kind", put(NODE, "kind: Node", "kind: Pool"), "wrong-kind", NODE, "kind", "a Node belongs", "pools/"),
    Case(
        "kind in lower case", put(NODE, "kind: Node", "kind: node"), "wrong-kind", NODE, "kind", "'node'", "kind: Node"
    ),
    Case("api version", put(NODE, "v1alpha1", "v1"), "api-version", NODE, "apiVersion", "kubenode.dev/v1alpha1"),
    Case("name differs", put(NODE, "name: worker-1", "name: worker-9"), "name-differs", NODE, "worker-9", "'worker-1'"),
    Case("no kind", put(NODE, "kind: Node\n", ""), "missing-field", NODE, "apiVersion", "needs the field 'kind'"),
    Case(
        "a list", write("nodes/x.yaml", "- a\n"), "wrong-type", "nodes/x.yaml", "- a", "must be a mapping, not a list"
    ),
    # The schema.
    Case(
        "unknown field",
        put(WORKERS, "maxUnavailable:", "maxUnavailible:"),
        "unknown-field",
        WORKERS,
        "maxUnavailible",
        "spec.rollout has no field 'maxUnavailible'",
        "Did you mean 'maxUnavailable'?",
    ),
    Case(
        "misspelled required field", put(NODE, "pool:", "pol:"), "unknown-field", NODE, "pol:", "'pol'", "mean 'pool'"
    ),
    Case("misspelled channel", put(WORKERS, "  channel:", "  chanel:"), "unknown-field", WORKERS, "chanel", "'chanel'"),
    Case(
        "field of another place",
        put(WORKERS, "  labels:", "  drain: {timeout: 1m}\n  labels:"),
        "unknown-field",
        WORKERS,
        "timeout: 1m",
        "spec has no field 'drain'",
        "belongs in spec.rollout",
    ),
    Case(
        "no channel",
        put(WORKERS, "  channel: stable\n", ""),
        "missing-field",
        WORKERS,
        "role:",
        "'channel' and 'release'",
    ),
    Case(
        "wrong role",
        put(WORKERS, "role: worker", "role: workers"),
        "not-allowed",
        WORKERS,
        "role:",
        "allowed: control-plane, worker, standalone",
        "Did you mean 'worker'?",
    ),
    Case(
        "bad duration", put(WORKERS, "soak: 30m", "soak: 30 min"), "bad-value", WORKERS, "soak", "not a valid duration"
    ),
    Case("bad amount", put(WORKERS, "[1, 25%", "[1, 250%"), "bad-value", WORKERS, "waves", "spec.rollout.waves[1]"),
    Case("zero amount", put(WORKERS, "10%", "0"), "out-of-range", WORKERS, "maxUnavailable", "the least is 1"),
    Case(
        "text for a list",
        put(WORKERS, "[1, 25%, 100%]", "25%"),
        "wrong-type",
        WORKERS,
        "waves",
        "must be a list, not the text '25%'",
    ),
    Case(
        "a version that is a number",
        put("channels/nightly.yaml", "[2026.11.2]", "[2026.11]"),
        "wrong-type",
        "channels/nightly.yaml",
        "releases",
        "must be text, not the number 2026.11",
        "quotes",
    ),
    Case("empty field", put(NODE, "pool: workers", "pool:"), "wrong-type", NODE, "pool:", "but it is empty"),
    Case("bad digest", put(R1, "sha256:2b", "sha256:2"), "bad-value", R1, "manifest", "manifest digest"),
    Case("name with a line break", put(NODE, "pool: workers", 'pool: "workers\\n"'), "bad-value", NODE, "pool", "name"),
    Case("bad store", put(FLEET, "[https://", "[ftp://"), "bad-value", FLEET, "stores", "not a valid store URL"),
    Case(
        "no stores", put(FLEET, "[https://images.example.net/kubenode]", "[]"), "out-of-range", FLEET, "stores", "empty"
    ),
    Case("password in store", put(FLEET, "//images", "//a:b@images"), "bad-value", FLEET, "stores", "store URL"),
    Case("no such date", put(FLEET, "2026-12-01", "2026-02-30"), "bad-value", FLEET, "initBefore", "not a time in UTC"),
    Case("duplicate release", put(STABLE, "2026.10.4", "2026.11.1"), "duplicate-item", STABLE, "releases", "twice"),
    Case(
        "sysctl key",
        put(WORKERS, "vm.max_map_count", "max map"),
        "bad-value",
        WORKERS,
        "max map",
        "a key of spec.sysctls",
    ),
    Case("path outside /etc", put(ALONE, "/etc/motd", "/usr/motd"), "bad-value", ALONE, "/usr/motd", "path below /etc"),
    Case("path with dots", put(ALONE, "/etc/motd", "/etc/../x"), "bad-value", ALONE, "/etc/../x", "path below /etc"),
    Case("mode", put(WORKERS, '"0644"', '"644"'), "bad-value", WORKERS, "mode", "octal mode"),
]
