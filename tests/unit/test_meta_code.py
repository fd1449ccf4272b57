"""Rules of the source tree that no linter knows: sizes, package docstrings, what the agent may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kubenode.image.agent_tree import NOT_ON_NODES, imported

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kubenode"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = [path for path in SOURCES if path.name == "__init__.py"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_sources_were_found() -> None:
    assert len(SOURCES) > 80


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_is_introduced_by_a_short_docstring_and_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text())
    text = ast.get_docstring(tree)
    assert text and len(text.splitlines()) <= 12
    rest = tree.body[1:]
    if path == PACKAGE / "__init__.py":
        rest = [it for it in rest if not (isinstance(it, ast.Assign) and ast.unparse(it.targets[0]) == "__version__")]
    assert rest == []


# Importing the agent where the modules that an image leaves out do not exist.

USED_LATE = (
    "kubenode.trust.bundle",
    "kubenode.trust.chain",
    "kubenode.trust.tree",
    "kubenode.fleet.load",
    "kubenode.fleet.desired",
    "kubenode.host.git",
    "kubenode.host.http",
    "kubenode.host.kube.cluster",
    "kubenode.host.stores",
    "kubenode.host.slotwriter",
    "sigstore.models",
    "sigstore.verify",
    "rich.console",
)
BLOCKED_IMPORT = """
import importlib, sys
left_out = {left_out!r}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if any(name == it or name.startswith(it + '.') for it in left_out):
            raise ModuleNotFoundError(f'{{name}} is not on nodes', name=name)
        return None

sys.meta_path.insert(0, Missing())
from kubenode.cli.agent import app
import kubenode.agent.health, kubenode.cli.wire
print(*sorted(name for name in sys.modules if name.split('.')[0] in {heavy!r}))
{rest}
"""
HEAVY = ("sigstore", "git", "httpx", "ruamel", "cryptography")


ON_NODES = imported(PACKAGE)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def missing_on_nodes() -> list[str]:
    modules = {"gitpython": "git"}
    inside = {module_of(path) for path in SOURCES} - set(ON_NODES)
    return sorted([*inside, *(modules.get(name, name) for name in NOT_ON_NODES)])


@pytest.mark.parametrize(
    "name", ["cli.main", "cli.plan", "image", "lab", "plan.status", "plan.simulate", "host.kube.live", "fleet.validate"]
)
def test_what_only_laptops_use_is_in_no_image(name: str) -> None:
    assert f"kubenode.{name}" in {module_of(path) for path in SOURCES}
    assert f"kubenode.{name}" not in ON_NODES


def blocked(rest: str) -> "subprocess.CompletedProcess[str]":
    script = BLOCKED_IMPORT.format(left_out=missing_on_nodes(), heavy=HEAVY, rest=rest)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_agent_imports_only_what_nodes_have() -> None:
    done = blocked("".join(f"importlib.import_module({name!r})\n" for name in (*USED_LATE, *ON_NODES)))
    assert done.returncode == 0, done.stderr


def test_the_block_works() -> None:
    done = blocked("import jsonschema")
    assert (done.returncode, "is not on nodes" in done.stderr) == (1, True)


def test_the_agent_verifies_a_release_with_what_nodes_have(prepared: object) -> None:
    from cliworld import OLD, World

    assert isinstance(prepared, World)
    # git takes no address with a space in it, and the fleet's folder has one.
    bare = prepared.top.parent / "bare.git"
    prepared.git("clone", "--quiet", "--bare", ".", bare)
    done = blocked(f"""
from pathlib import Path
from kubenode.host.git import FleetRepository
from kubenode.host.stores import HttpStores
from kubenode.fleet.desired import desired_state
from kubenode.fleet.load import load_fleet
from kubenode.model.version import Version
from kubenode.trust.bundle import verify_release
from kubenode.trust.chain import authenticate
from kubenode.trust.tree import trusted_tree

with FleetRepository(Path({str(prepared.top / "agent.git")!r})) as source:
    head = source.fetch({str(bare)!r})
    anchor = {prepared.anchor!r}
    chain = source.first_parent_chain(anchor, head)
    trusted = authenticate(source.anchor(anchor), chain, fleet_id='f', head=head)
    tree = trusted_tree(trusted, source.read_tree(head))
desired = desired_state(load_fleet(tree.files, node='edge-1'), head, 'edge-1')
version = Version({OLD!r})
with HttpStores(({prepared.store.as_uri()!r},)) as store:
    manifest, bundle = store.manifest(version)
    b''.join(store.artifact(version, 'kubenode_{OLD}.efi', 0))
verified = verify_release(
    manifest, bundle, expected_manifest_sha256=desired.target.manifest,
    trusted_root_json=tree.files['trust/sigstore/trusted_root.json'],
    builders=tree.policy.builders_of(desired.channel), version=version,
)
print(verified.builder.identity)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "builder@homelab.internal"


def test_the_agent_starts_light() -> None:
    """What is slow to load waits until it is needed: nodes tick often and are slow."""
    loaded = blocked("").stdout.splitlines()[0].split()
    assert not [name for name in loaded if name in ("sigstore", "httpx")]
