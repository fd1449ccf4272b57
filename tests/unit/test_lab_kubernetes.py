"""The parts of the lab's Kubernetes that need no compiler."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from kubenode.fleet import decode, schemas
from kubenode.fleet.layout import Kind
from kubenode.lab.kubernetes.archive import ContainerImage, write_archive
from kubenode.lab.kubernetes.cluster import Kubernetes
from kubenode.lab.kubernetes.compile import stamps
from kubenode.lab.kubernetes.fleet import recipe
from kubenode.trust.strictyaml import load

EXAMPLE = Path(__file__).parents[2] / "fleet-example"


def test_an_archive_names_its_layer_by_what_is_in_it(tmp_path: Path) -> None:
    program, tree = tmp_path / "program", tmp_path / "tree"
    program.write_text("run me")
    program.chmod(0o755)
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    image = ContainerImage("k8s.gcr.io/pause:3.2", {"usr/bin/pause": program}, (tree,), ("/usr/bin/pause",))
    write_archive(image, tmp_path / "a.tar")
    program.touch()
    write_archive(image, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes(), "no times, no owners"
    with tarfile.open(tmp_path / "a.tar") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = archive.extractfile(manifest["Config"]).read()  # type: ignore[union-attr]
        layer = archive.extractfile(manifest["Layers"][0]).read()  # type: ignore[union-attr]
    assert manifest["RepoTags"] == ["k8s.gcr.io/pause:3.2"]
    assert manifest["Config"] == hashlib.sha256(config).hexdigest() + ".json"
    assert json.loads(config)["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inside:
        assert {it.name: (it.mode, it.linkname) for it in inside} == {
            "lib": (0o777, "usr/lib"),
            "usr": (0o755, ""),
            "usr/lib": (0o755, ""),
            "usr/bin": (0o755, ""),
            "usr/bin/pause": (0o755, ""),
        }


def test_a_version_is_stamped_in_both_packages() -> None:
    found = stamps("v1.21.0")
    assert sum("gitVersion=v1.21.0" in it for it in found) == 2
    assert sum("gitMinor=21" in it for it in found) == 2


def test_the_labs_recipe_is_a_valid_document(tmp_path: Path) -> None:
    for name in ("kubeadm", "kubelet", "crictl"):
        (tmp_path / name).write_text(name)
    text = recipe((EXAMPLE / "images/node.yaml").read_text(), Kubernetes("v1.20.2", tmp_path, ()))
    document = load(text.encode(), "images/node-1-20-2.yaml")
    assert schemas.violations(Kind.IMAGE, document.value) == []
    image = decode.image(document, "node-1-20-2")
    assert image.kubernetes is not None
    assert image.kubernetes.source.kubelet == hashlib.sha256(b"kubelet").hexdigest()
    assert image.slots.data == 4096
