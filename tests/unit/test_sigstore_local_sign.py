import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from test_bundle_fixtures import IDENTITY, NOW, STATEMENT, signed

from kubenode.errors import HostError, TryLater, UsageError
from kubenode.image.sign import LocalSigner, PublicSigner, Signer


class Clock:
    def now(self) -> datetime:
        return NOW


def test_the_local_signer_signs():
    signer: Signer = LocalSigner(signed().directory, IDENTITY, Clock())
    signed().verify(bundle=signer.sign(STATEMENT))


def test_no_token_no_signature(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda: None)
    with pytest.raises(UsageError, match="no identity token") as caught:
        PublicSigner().sign(STATEMENT)
    assert "token" in caught.value.hint


@pytest.mark.parametrize("token", ["x", "a.b.c"])
def test_an_unusable_token(token: str):
    with pytest.raises(UsageError, match="not usable"):
        PublicSigner(token=token).sign(STATEMENT)


@pytest.fixture
def any_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sigstore.oidc.IdentityToken", lambda raw: raw)


@pytest.mark.parametrize("content", [None, "", "{}", "x"])
def test_an_unusable_trust_config(tmp_path: Path, any_token: None, content: str | None):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="trust config"):
        PublicSigner(path, "token").sign(STATEMENT)


def trust_config(path: Path) -> Path:
    service = {"majorApiVersion": 1, "validFor": {"start": "2025-01-01T00:00:00Z"}, "operator": "x"}
    signing = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [service | {"url": "http://127.0.0.1:9/ca"}],
        "rekorTlogUrls": [service | {"url": "http://127.0.0.1:9/log"}],
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }
    config = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads(signed().root),
        "signingConfig": signing,
    }
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(("error", "kind"), [("NetworkError", TryLater), ("Error", HostError), (None, HostError)])
def test_a_service_that_fails(
    tmp_path: Path, any_token: None, monkeypatch: pytest.MonkeyPatch, error: str | None, kind: type[Exception]
):
    from sigstore import errors, sign

    def fail(*_: Any) -> None:
        raise getattr(errors, error)("no") if error else KeyError("no")

    monkeypatch.setattr(sign.SigningContext, "signer", fail)
    with pytest.raises(kind, match="Sigstore service"):
        PublicSigner(trust_config(tmp_path / "config.json"), "token").sign(STATEMENT)
