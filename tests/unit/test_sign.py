"""Signing with a local instance, and with a service over its real wire protocol (tests/sigstore_service.py)."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from test_bundle_fixtures import IDENTITY, NOW, STATEMENT, Signed, get, put, signed

from kubenode.errors import HostError, KubenodeError, TryLater, Untrusted, UsageError
from kubenode.image.sign import LocalSigner, ServiceSigner, Signer
from kubenode.image.sigstore_local_entry import RekorVersion
from kubenode.trust.policy import Builder
from kubenode.trust.reasons import Reason
from tests.sigstore_service import Service, serving


class Clock:
    def now(self) -> datetime:
        return NOW


def test_the_local_signer_signs():
    signer: Signer = LocalSigner(signed().directory, IDENTITY, Clock())
    signer.check()
    signed().verify(bundle=signer.sign(STATEMENT))


def test_the_local_signer_is_checked_before_a_build(tmp_path: Path):
    with pytest.raises(UsageError, match="no local Sigstore instance"):
        LocalSigner(tmp_path, IDENTITY, Clock()).check()


@pytest.fixture(params=[1, 2], ids=["rekor-v1", "rekor-v2"])
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(tmp_path / "instance", rekor=request.param) as found:
        yield found


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "instance") as found:
        yield found


def signer(service: Service, token: str | None = None, timeout: float = 30) -> ServiceSigner:
    folder = service.directory.parent
    (folder / "config.json").write_bytes(service.trust_config())
    (folder / "token").write_text((token or service.token(IDENTITY)) + "\n")
    return ServiceSigner(folder / "config.json", folder / "token", timeout)


def release(service: Service, bundle: bytes) -> Signed:
    return Signed(service.directory, STATEMENT, bundle, (service.directory / "trusted_root.json").read_bytes())


def test_a_service_signs_and_nodes_verify_offline(service: Service):
    bundle = signer(service).sign(STATEMENT)
    rekor: RekorVersion = service.instance.rekor
    assert service.requests == [
        "/api/v2/signingCert",
        "/.well-known/openid-configuration",
        "/keys",
        "/api/v1/timestamp",
        f"/api/v{rekor}/log/entries",
    ]
    builder = Builder(service.url, IDENTITY)
    assert release(service, bundle).verify(builders=[builder]).builder == builder
    entry = get(bundle, ("verificationMaterial", "tlogEntries", 0))
    expected = {1: ("dsse", True), 2: ("hashedrekord", False)}[rekor]
    assert (entry["kindVersion"]["kind"], "inclusionPromise" in entry) == expected
    with pytest.raises(Untrusted) as caught:
        release(service, bundle).verify(builders=[Builder(service.url, "other@example.net")])
    assert caught.value.reason is Reason.BUILDER_NOT_ALLOWED


def test_what_a_service_signed_cannot_be_changed(service: Service):
    bundle = signer(service).sign(STATEMENT)
    builders = [Builder(service.url, IDENTITY)]
    changed = put(bundle, ("verificationMaterial", "timestampVerificationData"), None)
    with pytest.raises(Untrusted) as caught:
        release(service, changed).verify(builders=builders)
    assert caught.value.reason is Reason.TIME_NOT_PROVEN


def test_the_token_may_come_from_the_environment(one: Service, monkeypatch: pytest.MonkeyPatch):
    config = signer(one).trust_config
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", one.token("ci@other.example.net"))
    found = release(one, ServiceSigner(config).sign(STATEMENT)).verify(
        builders=[Builder(one.url, "ci@other.example.net")]
    )
    assert found.builder.identity == "ci@other.example.net"


def test_the_token_may_come_from_the_ci_system(one: Service, monkeypatch: pytest.MonkeyPatch):
    config = signer(one).trust_config
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    monkeypatch.setattr("id.detect_credential", lambda audience: one.token(f"ci-for-{audience}"))
    bundle = ServiceSigner(config).sign(STATEMENT)
    assert release(one, bundle).verify(builders=[Builder(one.url, "ci-for-sigstore")])


def test_a_token_file_is_read_when_it_is_needed(one: Service):
    found = signer(one, one.token(IDENTITY, age=timedelta(hours=1)))
    with pytest.raises(UsageError, match="not usable"):
        found.check()
    assert found.token_file is not None
    found.token_file.write_text(one.token(IDENTITY))
    found.check()
    assert release(one, found.sign(STATEMENT)).verify(builders=[Builder(one.url, IDENTITY)])


def test_no_token_no_signature(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    monkeypatch.setattr("id.detect_credential", lambda audience: None)
    for call in (ServiceSigner().check, lambda: ServiceSigner().sign(STATEMENT)):
        with pytest.raises(UsageError, match="no identity token") as caught:
            call()
        assert "--identity-token" in caught.value.hint


def test_a_ci_system_that_gives_no_token(monkeypatch: pytest.MonkeyPatch):
    import id

    def fail(audience: str) -> str:
        raise id.GitHubOidcPermissionCredentialError("GitHub: missing or insufficient OIDC token permissions")

    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    monkeypatch.setattr("id.detect_credential", fail)
    with pytest.raises(UsageError, match="insufficient OIDC token permissions") as caught:
        ServiceSigner().check()
    assert "id-token: write" in caught.value.hint


@pytest.mark.parametrize("token", ["x", "a.b.c", " \n"])
def test_an_unusable_token(tmp_path: Path, token: str):
    (tmp_path / "token").write_text(token)
    with pytest.raises(UsageError, match=r"not usable|no identity token"):
        ServiceSigner(token_file=tmp_path / "token").check()


def test_a_token_for_somebody_else_is_not_sent(one: Service):
    with pytest.raises(UsageError, match="not usable"):
        signer(one, one.token(IDENTITY, aud="another-service")).sign(STATEMENT)
    assert one.requests == []


def test_a_token_that_the_service_does_not_take(one: Service, tmp_path: Path):
    with serving(tmp_path / "stranger") as stranger:
        token = stranger.token(IDENTITY, iss=one.url)
    with pytest.raises(UsageError, match=r"refused .HTTP 401.: .*Signature verification failed"):
        signer(one, token).sign(STATEMENT)


def test_a_token_file_that_is_missing(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        ServiceSigner(token_file=tmp_path / "nosuch").check()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"x", b"\xff"])
def test_an_unusable_trust_config(one: Service, content: bytes | None):
    found = signer(one)
    assert found.trust_config is not None
    found.trust_config.unlink()
    if content is not None:
        found.trust_config.write_bytes(content)
    for call in (found.check, lambda: found.sign(STATEMENT)):
        with pytest.raises(UsageError, match="trust config"):
            call()


def test_a_trust_config_whose_services_have_ended(one: Service):
    found = signer(one)
    assert found.trust_config is not None
    config = json.loads(found.trust_config.read_bytes())
    for log in config["signingConfig"]["rekorTlogUrls"]:
        log["validFor"]["end"] = "2020-01-01T00:00:00Z"
    found.trust_config.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="No valid Rekor transparency log"):
        found.check()


PATHS = ["/api/v2/signingCert", "/api/v1/log/entries"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"overloaded", TryLater),
        (429, b"", TryLater),
        (403, b"no", UsageError),
        (400, b'{"message":"bad"}', HostError),
        (200, b"{}", HostError),
        (200, b"\xff", KubenodeError),
        (201, b"[]", HostError),
    ],
)
def test_a_service_that_fails(one: Service, path: str, status: int, body: bytes, kind: type[KubenodeError]):
    one.break_with[path] = (status, body)
    with pytest.raises(kind, match="Sigstore service"):
        signer(one).sign(STATEMENT)


def test_a_service_that_is_down(one: Service):
    found = signer(one)
    assert found.trust_config is not None
    found.trust_config.write_bytes(found.trust_config.read_bytes().replace(one.url.encode(), b"http://127.0.0.1:9"))
    with pytest.raises(TryLater, match="cannot be reached"):
        found.sign(STATEMENT)


def test_a_service_that_never_answers(one: Service):
    found = signer(one, timeout=0.3)
    one.silent.set()
    begin = time.monotonic()
    with pytest.raises(TryLater, match="did not answer within 0 seconds"):
        found.sign(STATEMENT)
    assert time.monotonic() - begin < 5


def test_a_certificate_of_another_authority_is_noticed_at_once(one: Service, tmp_path: Path):
    found = signer(one)
    with serving(tmp_path / "other") as other:
        config = json.loads(one.trust_config())
        config["trustedRoot"] = json.loads(other.trust_config())["trustedRoot"]
    assert found.trust_config is not None
    found.trust_config.write_text(json.dumps(config))
    with pytest.raises(HostError, match="SCT"):
        found.sign(STATEMENT)


def test_without_a_timestamp_nothing_is_accepted_that_needs_one(one: Service):
    one.break_with["/api/v1/timestamp"] = (500, b"")
    bundle = signer(one).sign(STATEMENT)
    with pytest.raises(Untrusted) as caught:
        release(one, bundle).verify(builders=[Builder(one.url, IDENTITY)])
    assert caught.value.reason is Reason.TIME_NOT_PROVEN
