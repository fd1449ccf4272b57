"""SSH signatures: every key type, and every way in which one can be wrong."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.errors import KubenodeError, Untrusted
from kubenode.trust import sshsig
from kubenode.trust.keys import KeyRefused, PublicKey, UnsupportedKey
from kubenode.trust.reasons import Reason
from kubenode.trust.wire import string
from tests.gitrepo import armor, to_sign

MESSAGE = b"tree 1234\n\nhello\n"
APPLICATION = b"ssh:"

ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}
DIGESTS = {"nistp256": hashes.SHA256(), "nistp384": hashes.SHA384(), "nistp521": hashes.SHA512()}
EC = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def point(name: str) -> bytes:
    return EC[name].public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def pair(der: bytes) -> bytes:
    return string(b"".join(map(mpint, decode_dss_signature(der))))


def ed_key() -> PublicKey:
    return PublicKey.from_blob(string(b"ssh-ed25519") + string(ED.public_key().public_bytes_raw()))


def ed_sign(message: bytes = MESSAGE, **how: Any) -> bytes:
    return armor(ed_key(), string(b"ssh-ed25519") + string(ED.sign(to_sign(message, **how))), **how)


def rsa_sign(kind: str = "rsa-sha2-512", key: rsa.RSAPrivateKey = RSA) -> bytes:
    numbers = key.public_key().public_numbers()
    public = PublicKey.from_blob(string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n))
    algorithm = {"rsa-sha2-512": hashes.SHA512(), "rsa-sha2-256": hashes.SHA256(), "ssh-rsa": hashes.SHA1()}[kind]
    return armor(public, string(kind.encode()) + string(key.sign(to_sign(MESSAGE), padding.PKCS1v15(), algorithm)))


def ecdsa_sign(name: str) -> bytes:
    kind = f"ecdsa-sha2-{name}".encode()
    key = PublicKey.from_blob(string(kind) + string(name.encode()) + string(point(name)))
    return armor(key, string(kind) + pair(EC[name].sign(to_sign(MESSAGE), ec.ECDSA(DIGESTS[name]))))


def touched(flags: int, message: bytes, application: bytes = APPLICATION) -> tuple[bytes, bytes]:
    tail = bytes([flags]) + (7).to_bytes(4, "big")
    return hashlib.sha256(application).digest() + tail + hashlib.sha256(to_sign(message)).digest(), tail


def sk_ed_sign(flags: int = 1) -> bytes:
    kind = b"sk-ssh-ed25519@openssh.com"
    key = PublicKey.from_blob(string(kind) + string(ED.public_key().public_bytes_raw()) + string(APPLICATION))
    signed, tail = touched(flags, MESSAGE)
    return armor(key, string(kind) + string(ED.sign(signed)) + tail)


def sk_ecdsa_sign(flags: int = 1) -> bytes:
    kind = b"sk-ecdsa-sha2-nistp256@openssh.com"
    blob = string(kind) + string(b"nistp256") + string(point("nistp256")) + string(APPLICATION)
    signed, tail = touched(flags, MESSAGE)
    return armor(
        PublicKey.from_blob(blob), string(kind) + pair(EC["nistp256"].sign(signed, ec.ECDSA(hashes.SHA256()))) + tail
    )


SIGNERS: dict[str, Callable[[], bytes]] = {
    "ssh-ed25519": ed_sign,
    "ssh-ed25519 with sha256": lambda: ed_sign(digest="sha256"),
    "rsa-sha2-256": lambda: rsa_sign("rsa-sha2-256"),
    "rsa-sha2-512": rsa_sign,
    "ecdsa-sha2-nistp256": lambda: ecdsa_sign("nistp256"),
    "ecdsa-sha2-nistp384": lambda: ecdsa_sign("nistp384"),
    "ecdsa-sha2-nistp521": lambda: ecdsa_sign("nistp521"),
    "sk-ssh-ed25519": sk_ed_sign,
    "sk-ssh-ed25519 with user verification": lambda: sk_ed_sign(5),
    "sk-ecdsa": sk_ecdsa_sign,
}


@pytest.mark.parametrize("name", SIGNERS)
def test_every_key_type_verifies_and_binds_the_message(name: str) -> None:
    signature = SIGNERS[name]()
    key = sshsig.verify(signature, MESSAGE, namespace="git")
    assert key.algorithm.startswith(name.split()[0].split("-sha2-")[0].replace("rsa", "ssh-rsa"))
    with pytest.raises(Untrusted) as caught:
        sshsig.verify(signature, MESSAGE + b"x", namespace="git")
    assert caught.value.reason == Reason.BAD_SIGNATURE
    with pytest.raises(Untrusted) as caught:
        sshsig.verify(signature, MESSAGE, namespace="kubenode-approval")
    assert "purpose" in caught.value.message


@pytest.mark.parametrize("sign", [sk_ed_sign, sk_ecdsa_sign])
@pytest.mark.parametrize("flags", [0, 4])
def test_security_keys_must_have_been_touched(sign: Callable[[int], bytes], flags: int) -> None:
    with pytest.raises(Untrusted, match="not touched"):
        sshsig.verify(sign(flags), MESSAGE, namespace="git")


def _blob(armored: bytes) -> bytes:
    return base64.b64decode(b"".join(armored.splitlines()[1:-1]))


def _wrap(blob: bytes) -> bytes:
    return b"\n".join([sshsig.BEGIN, base64.b64encode(blob), sshsig.END, b""])


def _fields(**changed: bytes) -> bytes:
    """Take the ed25519 signature apart and put it together with other fields."""
    fields = {
        "version": (1).to_bytes(4, "big"),
        "key": string(ed_key().blob),
        "namespace": string(b"git"),
        "reserved": string(b""),
        "hash": string(b"sha512"),
        "signature": string(string(b"ssh-ed25519") + string(ED.sign(to_sign(MESSAGE)))),
        "tail": b"",
    }
    return _wrap(b"SSHSIG" + b"".join((fields | changed).values()))


def test_fields_are_put_together_right() -> None:
    assert sshsig.verify(_fields(), MESSAGE, namespace="git") == ed_key()


GOOD = string(b"ssh-ed25519") + string(ED.sign(to_sign(MESSAGE)))


@pytest.mark.parametrize(
    ("armored", "reason"),
    [
        (b"", Reason.BAD_SIGNATURE),
        (b"x" * 40_000, Reason.BAD_SIGNATURE),
        (ed_sign() + b"\n", Reason.BAD_SIGNATURE),
        (b" " + ed_sign(), Reason.BAD_SIGNATURE),
        (ed_sign().replace(b"\n", b"\r\n"), Reason.BAD_SIGNATURE),
        (ed_sign() + ed_sign(), Reason.BAD_SIGNATURE),
        (sshsig.BEGIN + b"\n" + sshsig.END + b"\n", Reason.BAD_SIGNATURE),
        (sshsig.BEGIN + b"\n====\n" + sshsig.END + b"\n", Reason.BAD_SIGNATURE),
        (_wrap(b"SSHSIX" + _blob(ed_sign())[6:]), Reason.BAD_SIGNATURE),
        (_wrap(_blob(ed_sign())[:-1]), Reason.BAD_SIGNATURE),
        (_fields(tail=b"\0"), Reason.BAD_SIGNATURE),
        (_fields(version=(2).to_bytes(4, "big")), Reason.UNSUPPORTED_SIGNATURE),
        (_fields(namespace=string(b"")), Reason.BAD_SIGNATURE),
        (_fields(namespace=string(b"file")), Reason.BAD_SIGNATURE),
        (_fields(namespace=string(b"git\0")), Reason.BAD_SIGNATURE),
        (_fields(reserved=string(b"x")), Reason.BAD_SIGNATURE),
        (_fields(hash=string(b"sha256")), Reason.BAD_SIGNATURE),
        (_fields(hash=string(b"sha1")), Reason.BAD_SIGNATURE),
        (_fields(hash=string(b"md5")), Reason.BAD_SIGNATURE),
        (_fields(key=string(ed_key().blob + b"\0")), Reason.BAD_SIGNATURE),
        (_fields(key=string(string(b"ssh-dss") + b"x")), Reason.UNSUPPORTED_SIGNATURE),
        (_fields(key=string(string(b"ssh-ed25519-cert-v01@openssh.com"))), Reason.UNSUPPORTED_SIGNATURE),
        (_fields(key=string(string(b"ssh-ed25519") + string(bytes(32)))), Reason.BAD_SIGNATURE),
        (_fields(signature=string(GOOD + b"\0")), Reason.BAD_SIGNATURE),
        (_fields(signature=string(string(b"ssh-ed25519") + string(bytes(63)))), Reason.BAD_SIGNATURE),
        (_fields(signature=string(string(b"ssh-rsa") + string(bytes(64)))), Reason.BAD_SIGNATURE),
        (_fields(signature=b"\xff\xff\xff\xff"), Reason.BAD_SIGNATURE),
        (rsa_sign("ssh-rsa"), Reason.BAD_SIGNATURE),
    ],
)
def test_wrong_signatures_are_refused(armored: bytes, reason: Reason) -> None:
    with pytest.raises(Untrusted) as caught:
        sshsig.verify(armored, MESSAGE, namespace="git", subject="here")
    assert caught.value.reason == reason
    assert caught.value.subject == "here"


def test_base64_must_be_canonical() -> None:
    padded = next(signed for signed in (sign() for sign in SIGNERS.values()) if b"=\n" in signed)
    lines = padded.splitlines()
    body = b"".join(lines[1:-1])
    bare = body.rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = bare[:-1] + alphabet[alphabet.index(bare[-1:]) + 1 :][:1] + b"=" * (len(body) - len(bare))
    assert base64.b64decode(other) == base64.b64decode(body)
    with pytest.raises(Untrusted, match="canonical"):
        sshsig.verify(b"\n".join([lines[0], other, lines[-1], b""]), MESSAGE, namespace="git")


def test_ecdsa_numbers_must_be_in_shortest_form() -> None:
    r, s = decode_dss_signature(EC["nistp256"].sign(to_sign(MESSAGE), ec.ECDSA(hashes.SHA256())))
    kind = b"ecdsa-sha2-nistp256"
    key = PublicKey.from_blob(string(kind) + string(b"nistp256") + string(point("nistp256")))
    padded = string(b"\0\0" + r.to_bytes(32, "big")) + mpint(s)
    for body in (padded, mpint(r) + mpint(s) + b"\0", mpint(r), mpint(0) + mpint(s), string(b"") + mpint(s)):
        with pytest.raises(Untrusted):
            sshsig.verify(armor(key, string(kind) + string(body)), MESSAGE, namespace="git")


def test_short_rsa_keys_are_refused() -> None:
    with pytest.raises(KeyRefused, match="1024 bits"):
        rsa_sign(key=rsa.generate_private_key(65537, 1024))


LINE = str(ed_key())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "expected"),
        ("ssh-ed25519", "expected"),
        ("ssh-ed25519 AAAA", "cut off"),
        ("ssh-ed25519 !!!!", "not base64"),
        (LINE[:-3], "not base64"),
        (LINE.replace("ssh-ed25519", "ssh-rsa", 1), "the key itself"),
        ("ssh-dss AAAA", "not supported"),
        ("no-touch-required " + LINE, "not supported"),
        ("ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(bytes(31))).decode(), "32 bytes"),
        ("ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(b"\1" + bytes(31))).decode(), "small order"),
        ("ssh-rsa " + base64.b64encode(string(b"ssh-rsa") + mpint(65537) + mpint(2**3000)).decode(), "cannot be right"),
        ("ssh-rsa " + base64.b64encode(string(b"ssh-rsa") + mpint(1) + mpint(2**3000 + 1)).decode(), "cannot be right"),
    ],
)
def test_keys_that_cannot_be_used(line: str, words: str) -> None:
    with pytest.raises(KeyRefused, match=words):
        PublicKey.parse(line)


def test_off_curve_points_are_refused() -> None:
    blob = string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\x04" + bytes(range(64)))
    with pytest.raises(KeyRefused, match="do not form"):
        PublicKey.from_blob(blob)


def test_keys_are_values() -> None:
    key = PublicKey.parse(f"  {LINE} alice@laptop \n")
    assert key == ed_key()
    assert hash(key) == hash(ed_key())
    assert key.comment == "alice@laptop"
    assert str(key) == f"{LINE} alice@laptop"
    assert isinstance(key, PublicKey) and issubclass(UnsupportedKey, KeyRefused)


CORPUS = [_blob(sign()) for sign in SIGNERS.values()]


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_changed_signatures_never_verify(data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(CORPUS)))
    at = data.draw(st.integers(0, len(blob) - 1))
    change = data.draw(st.integers(1, 255))
    blob[at] ^= change
    try:
        sshsig.verify(_wrap(bytes(blob)), MESSAGE, namespace="git")
    except KubenodeError:
        return
    raise AssertionError(f"accepted with byte {at} changed by {change}")


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes_never_verify(data: bytes) -> None:
    for armored in (data, _wrap(data), _wrap(b"SSHSIG\0\0\0\1" + data)):
        with pytest.raises(KubenodeError):
            sshsig.verify(armored, MESSAGE, namespace="git")
