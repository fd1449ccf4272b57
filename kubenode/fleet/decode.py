"""Turns documents into the dataclasses of `kubenode.model.documents`, reading only the fields that those have."""

from kubenode.errors import FleetInvalid, Location
from kubenode.fleet import scalars
from kubenode.fleet.fields import Fields
from kubenode.fleet.layout import API_GROUP, Kind
from kubenode.model.documents import (
    BinarySource,
    Channel,
    Cluster,
    ClusterCA,
    File,
    Fleet,
    Image,
    KubernetesRecipe,
    Node,
    Partition,
    Pool,
    Release,
    Role,
    Rollout,
    Sealed,
    SealedSecret,
    SecretFile,
    SlotSizes,
    StorageMount,
    Window,
)
from kubenode.model.version import Version
from kubenode.trust.strictyaml import Document


def check_header(document: Document, kind: Kind, name: str | None) -> str:
    """Return the document's name after checking that it is of this kind and, unless None, has this name.

    Every version of the format is let through: what is read here keeps its place and meaning in all of them.
    Raises FleetInvalid.
    """
    top = Fields(document)
    version = top.text("apiVersion")
    if not version.startswith(API_GROUP):
        top.refuse("apiVersion", f"apiVersion is {version[:80]!r}, not one of {API_GROUP}*")
    if top.text("kind") != kind:
        top.refuse("kind", f"kind is {top.text('kind')[:80]!r}; a {kind} belongs here")
    found = top.part("metadata").text("name")
    if name is not None and found != name:
        where = document.locate("metadata", "name")
        raise FleetInvalid(
            f"metadata.name is {found[:80]!r}, but the file is called {name!r}",
            location=where,
            hint="Make them the same: a document's name is its file name without .yaml.",
        )
    return found


def fleet(document: Document) -> Fleet:
    """Read a Fleet. Raises FleetInvalid."""
    name = check_header(document, Kind.FLEET, None)
    spec = Fields(document, "spec")
    rollout = spec.part("rollout")
    stores = spec.texts("stores")
    if not stores:
        spec.refuse("stores", "spec.stores is empty: nodes would not know where images are")
    return Fleet(
        name=name,
        id=spec.text("id"),
        stores=stores,
        cluster=_cluster(spec.part("cluster")) if spec.present("cluster") else None,
        rollout_order=rollout.texts("order"),
        halted=rollout.flag("halted"),
    )


def _cluster(fields: Fields) -> Cluster:
    return Cluster(
        endpoint=fields.text("endpoint"),
        bootstrap_node=fields.text("bootstrapNode"),
        init_before=fields.parsed("initBefore", scalars.timestamp),
    )


def channel(document: Document, name: str) -> Channel:
    """Read a Channel. Raises FleetInvalid."""
    check_header(document, Kind.CHANNEL, name)
    return Channel(name, Fields(document, "spec").parsed_list("releases", Version))


def release(document: Document, name: str) -> Release:
    """Read a Release. Raises FleetInvalid."""
    check_header(document, Kind.RELEASE, name)
    spec = Fields(document, "spec")
    version = spec.parsed("version", Version)
    if version.text != name:
        spec.refuse("version", f"spec.version is {version.text!r}, but the file is called {name!r}")
    return Release(
        version=version,
        manifest=spec.parsed("manifest", scalars.hex_digest),
        root_hash=spec.parsed("rootHash", scalars.hex_digest),
        kubernetes=spec.parsed_or("kubernetes", scalars.kubernetes, None),
        floor=spec.parsed_or("floor", Version, None),
    )


def pool(document: Document, name: str) -> Pool:
    """Read a Pool. Raises FleetInvalid."""
    check_header(document, Kind.POOL, name)
    spec = Fields(document, "spec")
    return Pool(
        name=name,
        role=spec.parsed("role", Role),
        image=spec.text("image"),
        channel=spec.text_or_none("channel"),
        release=spec.parsed_or("release", Version, None),
        extensions=spec.texts("extensions"),
        rollout=_rollout(spec.part("rollout")),
        sysctls=spec.part("sysctls").pairs(),
        labels=spec.part("labels").pairs(),
        files=tuple(_file(fields) for fields in spec.parts("files")),
    )


def _rollout(fields: Fields) -> Rollout:
    default = Rollout()
    drain = fields.part("drain")
    return Rollout(
        max_unavailable=fields.scalar_or("maxUnavailable", scalars.amount, default.max_unavailable),
        waves=fields.parsed_list("waves", scalars.amount) or default.waves,
        soak=fields.parsed_or("soak", scalars.duration, default.soak),
        max_failures=fields.number_or("maxFailures", default.max_failures),
        windows=tuple(_window(window) for window in fields.parts("windows")),
        drain_timeout=drain.parsed_or("timeout", scalars.duration, default.drain_timeout),
        drain_force=drain.text_or_none("onTimeout") == "force",
    )


def _window(fields: Fields) -> Window:
    return Window(
        days=frozenset(fields.parsed_list("days", scalars.day)),
        start=fields.parsed("start", scalars.time_of_day),
        duration=fields.parsed("duration", scalars.duration),
        timezone=fields.text_or_none("timezone") or "UTC",
    )


def _file(fields: Fields) -> File:
    return File(
        path=fields.text("path"),
        source=fields.part("contents").text("source"),
        mode=fields.parsed_or("mode", scalars.mode, File.mode),
    )


def node(document: Document, name: str) -> Node:
    """Read a Node. Raises FleetInvalid."""
    check_header(document, Kind.NODE, name)
    spec = Fields(document, "spec")
    identity = spec.part("identity")
    return Node(
        name=name,
        pool=spec.text("pool"),
        address=spec.text_or_none("address"),
        disk=spec.text_or_none("disk"),
        age_recipient=identity.text_or_none("ageRecipient"),
        ssh_key=identity.text_or_none("sshKey"),
    )


def image(document: Document, name: str) -> Image:
    """Read an Image. Raises FleetInvalid."""
    check_header(document, Kind.IMAGE, name)
    spec = Fields(document, "spec")
    base, kernel, slots = spec.part("base"), spec.part("kernel"), spec.part("slots")
    default, sizes = Image(name), SlotSizes()
    return Image(
        name=name,
        distribution=base.text_or_none("distribution") or default.distribution,
        suite=base.text_or_none("suite") or default.suite,
        modules=kernel.text_or_none("modules") or default.modules,
        packages=spec.texts("packages"),
        kubernetes=_kubernetes(spec.part("kubernetes")) if spec.present("kubernetes") else None,
        overlay=spec.text_or_none("overlay"),
        kernel_command_line=kernel.texts("commandLine"),
        storage=tuple(
            StorageMount(fields.text("path"), fields.parsed("partition", Partition)) for fields in spec.parts("storage")
        ),
        slots=SlotSizes(
            esp=slots.number_or("esp", sizes.esp),
            root=slots.number_or("root", sizes.root),
            verity=slots.number_or("verity", sizes.verity),
            state=slots.number_or("state", sizes.state),
            data=slots.number_or("data", sizes.data),
        ),
    )


def sealed_secret(document: Document, name: str) -> SealedSecret:
    """Read a SealedSecret. Raises FleetInvalid."""
    check_header(document, Kind.SEALED_SECRET, name)
    spec = Fields(document, "spec")
    readers, sealed = spec.part("for"), spec.part("sealed")
    operators = sealed.part("operators")
    return SealedSecret(
        name=name,
        sealed=Sealed(
            sha256=sealed.parsed("sha256", scalars.hex_digest),
            nodes=sealed.part("nodes").pairs(),
            operators=tuple((person, operators.texts(person)) for person in operators.names()),
        ),
        nodes=readers.texts("nodes"),
        pools=readers.texts("pools"),
        roles=readers.parsed_list("roles", Role),
        operators=spec.texts("operators"),
        file=_secret_file(spec.part("file")) if spec.present("file") else None,
        cluster_ca=_cluster_ca(spec.part("clusterCA")) if spec.present("clusterCA") else None,
        bootstrap_token_of=spec.text_or_none("bootstrapTokenOf"),
    )


def _secret_file(fields: Fields) -> SecretFile:
    return SecretFile(
        path=fields.text("path"),
        mode=fields.parsed_or("mode", scalars.mode, SecretFile.mode),
        owner=fields.text_or_none("owner") or SecretFile.owner,
    )


def _cluster_ca(fields: Fields) -> ClusterCA:
    digest = fields.parsed("caCertHash", scalars.hex_digest)
    return ClusterCA(certificate=fields.text("certificate"), ca_cert_hash=f"sha256:{digest}")


def _kubernetes(fields: Fields) -> KubernetesRecipe:
    source = fields.part("source")
    digests = source.part("sha256")
    return KubernetesRecipe(
        version=fields.parsed("version", scalars.kubernetes),
        source=BinarySource(
            url=source.text("url"),
            kubeadm=digests.parsed("kubeadm", scalars.hex_digest),
            kubelet=digests.parsed("kubelet", scalars.hex_digest),
            crictl=digests.parsed_or("crictl", scalars.hex_digest, None),
        ),
        sandbox_image=fields.text_or_none("sandboxImage"),
    )


def missing(path: str, hint: str) -> FleetInvalid:
    """Return the error for a document that is not there."""
    return FleetInvalid(f"the file {path} is missing", location=Location(path), hint=hint)
