"""Our SSH signature check against ssh-keygen -Y: both must give the same verdict on the same bytes."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kubenode.errors import Untrusted
from kubenode.trust import sshsig
from tests.gitrepo import SigningKey, sign_in_process
from tests.unit.test_sshsig import MESSAGE as SIGNED
from tests.unit.test_sshsig import SIGNERS, sk_ecdsa_sign, sk_ed_sign

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")

MESSAGE = b"tree 1234\nauthor x\n\nhello\n"
KINDS = [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    kind, bits = request.param
    return SigningKey.make(tmp_path_factory.mktemp("keys"), f"{kind}-{bits}", kind, bits)


def keygen_sign(key: SigningKey, message: bytes, *, namespace: str = "git", digest: str = "sha512") -> bytes:
    argv = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-O", f"hashalg={digest}", "-f", str(key.path)]
    return subprocess.run(argv, input=message, capture_output=True, check=True).stdout


def keygen_accepts(folder: Path, key: SigningKey, signature: bytes, message: bytes, namespace: str = "git") -> bool:
    return keygen_judges(folder, key.public, signature, message, namespace)


def keygen_judges(folder: Path, public: str, signature: bytes, message: bytes, namespace: str = "git") -> bool:
    allowed, file = folder / "allowed", folder / "sig"
    allowed.write_text(f"alice {public}\n")
    file.write_bytes(signature)
    argv = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "alice", "-n", namespace, "-s", str(file)]
    return subprocess.run(argv, input=message, capture_output=True, check=False).returncode == 0


def we_accept(key: SigningKey, signature: bytes, message: bytes, namespace: str = "git") -> bool:
    try:
        return sshsig.verify(signature, message, namespace=namespace) == key.key
    except Untrusted:
        return False


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_same_verdicts(key: SigningKey, digest: str, tmp_path: Path) -> None:
    good = keygen_sign(key, MESSAGE, digest=digest)
    other = keygen_sign(key, MESSAGE, namespace="file", digest=digest)
    cases = {
        "good": (good, MESSAGE, True),
        "other message": (good, MESSAGE + b"\n", False),
        "other purpose": (other, MESSAGE, False),
        "cut": (b"\n".join(good.splitlines()[:2] + good.splitlines()[-1:]) + b"\n", MESSAGE, False),
    }
    for name, (signature, message, expected) in cases.items():
        assert we_accept(key, signature, message) is expected, name
        assert keygen_accepts(tmp_path, key, signature, message) is expected, name


@pytest.mark.parametrize("name", SIGNERS)
@pytest.mark.parametrize("message", [SIGNED, SIGNED + b"x"], ids=["signed", "other"])
def test_every_algorithm_gets_the_verdict_of_ssh_keygen(name: str, message: bytes, tmp_path: Path) -> None:
    """Security keys and rsa-sha2-256 too, whose signatures are put together here from the key's own operation."""
    signature = SIGNERS[name]()
    key = sshsig.parse(signature).key
    expected = message == SIGNED
    assert keygen_judges(tmp_path, str(key), signature, message) is expected
    try:
        accepted = sshsig.verify(signature, message, namespace="git") == key
    except Untrusted:
        accepted = False
    assert accepted is expected


@pytest.mark.parametrize("sign", [sk_ed_sign, sk_ecdsa_sign])
def test_we_are_stricter_about_untouched_security_keys(sign: Callable[[int], bytes], tmp_path: Path) -> None:
    """`ssh-keygen -Y verify` leaves it to its caller to look at the flags; we do not take such a signature."""
    signature = sign(0)
    assert keygen_judges(tmp_path, str(sshsig.parse(signature).key), signature, SIGNED)
    with pytest.raises(Untrusted, match="not touched"):
        sshsig.verify(signature, SIGNED, namespace="git")


def test_fingerprint_is_the_one_of_ssh_keygen(key: SigningKey) -> None:
    printed = subprocess.run(["ssh-keygen", "-l", "-f", f"{key.path}.pub"], capture_output=True, check=True).stdout
    assert key.key.fingerprint in printed.decode().split()


def test_the_test_signer_agrees_with_ssh_keygen(tmp_path: Path) -> None:
    key = SigningKey.make(tmp_path, "bob")
    signature = sign_in_process(key, MESSAGE)
    assert signature == keygen_sign(key, MESSAGE)
    assert keygen_accepts(tmp_path, key, signature, MESSAGE)


def test_a_strangers_signature_is_valid_but_his(tmp_path: Path) -> None:
    key, stranger = SigningKey.make(tmp_path, "alice"), SigningKey.make(tmp_path, "mallory")
    signature = keygen_sign(stranger, MESSAGE)
    assert not keygen_accepts(tmp_path, key, signature, MESSAGE)
    assert sshsig.verify(signature, MESSAGE, namespace="git") == stranger.key
