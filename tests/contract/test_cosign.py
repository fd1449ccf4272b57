"""Anyone can check a release without kubenode: Debian's cosign accepts our bundles and refuses what we refuse."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubenode.errors import Untrusted
from kubenode.image import sigstore_local
from tests.contract.cosign_tool import Unavailable, find_cosign
from tests.unit.test_bundle_fixtures import CONTENT, IDENTITY, ISSUER, NOW, STATEMENT, Signed, b64, get, put

ENTRY = ("verificationMaterial", "tlogEntries", 0)
STAMPS = ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps")
NAME = sorted(CONTENT)[0]


@pytest.fixture(scope="module")
def cosign() -> Path:
    try:
        return find_cosign()
    except Unavailable as reason:
        pytest.skip(f"cosign cannot be had: {reason}")


@pytest.fixture(scope="module", params=[1, 2], ids=["rekor-v1", "rekor-v2"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    directory = tmp_path_factory.mktemp("cosign") / "sigstore"
    root = sigstore_local.create(directory, issuer=ISSUER, now=NOW, rekor=request.param)
    bundles = [sigstore_local.sign(directory, STATEMENT, IDENTITY, NOW) for _ in range(3)]
    return Signed(directory, STATEMENT, bundles[-1], root.read_bytes())


def accepts(cosign: Path, folder: Path, release: Signed, **changes: Any) -> tuple[bool, str]:
    """Let cosign check the first artifact of a release; return its verdict and what it said."""
    files = {
        "bundle.json": changes.get("bundle", release.bundle),
        "root.json": changes.get("root", release.root),
        NAME: changes.get("artifact", CONTENT[NAME]),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    words = [
        *("verify-blob-attestation", "--bundle", "bundle.json", "--trusted-root", "root.json"),
        *("--certificate-identity", changes.get("identity", IDENTITY)),
        *("--certificate-oidc-issuer", changes.get("issuer", ISSUER)),
        *("--type", changes.get("type", "https://slsa.dev/provenance/v1"), NAME),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home")}
    done = subprocess.run(
        [cosign, *words], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=60
    )
    return done.returncode == 0, done.stdout + done.stderr


def test_it_accepts_what_we_sign(cosign: Path, release: Signed, tmp_path: Path) -> None:
    accepted, said = accepts(cosign, tmp_path, release)
    assert (accepted, "Verified OK" in said) == (True, True), said
    release.verify()


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "other@example.net"},
        {"issuer": "https://other.example.net"},
        {"artifact": b"another artifact"},
        {"type": "https://cyclonedx.org/bom"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_it_refuses_other_expectations(cosign: Path, release: Signed, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert not accepts(cosign, tmp_path, release, **changes)[0]


TAMPERED = {
    "payload": lambda bundle: put(bundle, ("dsseEnvelope", "payload"), b64(b"{}")),
    "signature": lambda bundle: put(bundle, ("dsseEnvelope", "signatures", 0, "sig"), b64(b"0" * 70)),
    "no log entry": lambda bundle: put(bundle, ENTRY[:-1], []),
    "no log proof": lambda bundle: put(bundle, (*ENTRY, "inclusionProof"), None),
    "no time": lambda bundle: put(put(bundle, STAMPS, []), (*ENTRY, "integratedTime"), "0"),
    # Both places: cosign reads the outer one for Rekor v2 and the inner one for v1, and does not compare them.
    "log position": lambda bundle: put(
        put(bundle, (*ENTRY, "logIndex"), "0"), (*ENTRY, "inclusionProof", "logIndex"), "0"
    ),
    "another log": lambda bundle: put(bundle, (*ENTRY, "logId", "keyId"), b64(b"x" * 32)),
    "checkpoint": lambda bundle: put(
        bundle,
        (*ENTRY, "inclusionProof", "checkpoint", "envelope"),
        get(bundle, (*ENTRY, "inclusionProof", "checkpoint", "envelope")).replace("\n3\n", "\n4\n"),
    ),
}


@pytest.mark.parametrize("attack", TAMPERED)
def test_it_refuses_what_we_refuse(cosign: Path, release: Signed, tmp_path: Path, attack: str) -> None:
    bundle = TAMPERED[attack](release.bundle)
    with pytest.raises(Untrusted):
        release.verify(bundle=bundle)
    accepted, said = accepts(cosign, tmp_path, release, bundle=bundle)
    assert not accepted, said


def test_it_refuses_another_instance(cosign: Path, release: Signed, tmp_path: Path) -> None:
    root = sigstore_local.create(tmp_path / "other", issuer=ISSUER, now=NOW).read_bytes()
    assert not accepts(cosign, tmp_path, release, root=root)[0]
