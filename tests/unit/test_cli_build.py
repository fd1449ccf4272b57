"""`kubenode build` signs with a folder or a service, says early what is missing, and loses no build to a signature."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cliworld import World, kubenode

from kubenode.errors import UsageError
from kubenode.image import build as image_build
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME
from tests.sigstore_service import Service, serving

VERSION = "2026.12.1"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of mkosi: artifacts of a few bytes. Lists what was built."""
    built: list[str] = []

    def build(request: Any) -> image_build.BuiltImage:
        folder = request.output / request.version
        if folder.exists():
            raise UsageError(f"{folder} exists already")
        folder.mkdir(parents=True)
        built.append(request.version)
        artifacts = []
        for role in ("root", "verity", "uki", "packages"):
            path = folder / f"kubenode_{request.version}.{role}"
            path.write_bytes(os.urandom(1000))
            artifacts.append(image_build.Artifact(role, path, 1000))
        return image_build.BuiltImage(request.version, "ee" * 32, tuple(artifacts), ())

    monkeypatch.setattr(image_build, "build", build)
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    monkeypatch.setattr("id.detect_credential", lambda audience: None)
    return built


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "service", issuer="https://issuer.example.net") as found:
        yield found


def build(world: World, sigstore: str | Path, *words: str | Path) -> Any:
    options = ("--version", VERSION, "--sigstore", sigstore, "--output", world.out)
    return world.run("build", "node", *options, *words)


def accept(world: World, service: Service, identity: str) -> None:
    """Let the fleet accept what this service signs for this identity."""
    policy = world.fleet / "trust" / "policy.yaml"
    text = policy.read_text()
    old = next(line.split("issuer:")[1].split(",")[0].strip() for line in text.splitlines() if "issuer:" in line)
    policy.write_text(text.replace(old, service.instance.issuer).replace("builder@homelab.internal", identity))
    root = world.fleet / "trust" / "sigstore" / "trusted_root.json"
    root.write_bytes((service.directory / "trusted_root.json").read_bytes())
    world.git("commit", "--quiet", "--all", "--message", "Another builder")


def config(world: World, service: Service, identity: str = "ci@example.net") -> tuple[Path, Path]:
    path, token = world.top / "config.json", world.top / "token"
    path.write_bytes(service.trust_config())
    token.write_text(service.token(identity))
    return path, token


def test_a_local_instance_signs(world: World, builds: list[str]) -> None:
    done = build(world, world.sigstore)
    assert (done.code, builds) == (0, [VERSION]), done.err
    assert "signed by builder@homelab.internal" in done.last
    assert world.run("publish", world.out / VERSION, "--store", world.store).code == 0
    done = world.run("verify", world.out / VERSION, "--channel", "beta")
    assert done.code == 0, done.err


def test_a_private_service_signs(world: World, builds: list[str], service: Service) -> None:
    accept(world, service, "ci@example.net")
    path, token = config(world, service)
    done = build(world, path, "--identity-token", token)
    assert done.code == 0, done.err
    assert "signed by ci@example.net" in done.last
    assert world.run("publish", world.out / VERSION, "--store", world.store).code == 0
    assert world.run("verify", world.out / VERSION, "--channel", "beta").code == 0


def test_a_builder_that_no_channel_accepts_is_told_at_once(world: World, builds: list[str], service: Service) -> None:
    accept(world, service, "ci@example.net")
    path, token = config(world, service, "intruder@example.net")
    done = build(world, path, "--identity-token", token)
    assert done.code == 3
    assert "no node would accept it" in done.err and "intruder@example.net" in done.err


def test_a_build_is_not_lost_to_a_service_that_is_down(world: World, builds: list[str], service: Service) -> None:
    accept(world, service, "ci@example.net")
    path, token = config(world, service)
    service.break_with["/api/v1/log/entries"] = (503, b"")
    assert build(world, path, "--identity-token", token).code == 75
    assert (world.out / VERSION / MANIFEST_NAME).is_file()
    assert not (world.out / VERSION / BUNDLE_NAME).exists()
    service.break_with.clear()
    done = build(world, path, "--identity-token", token)
    assert (done.code, builds) == (0, [VERSION]), done.err
    assert "signing what is there" in done.err
    done = build(world, path, "--identity-token", token)
    assert (done.code, "exists already" in done.err) == (64, True)


def test_an_unsigned_build_is_signed_only_as_it_was_built(world: World, builds: list[str]) -> None:
    assert build(world, world.sigstore).code == 0
    folder = world.out / VERSION
    (folder / BUNDLE_NAME).unlink()
    artifact = next(folder.glob("*.root"))
    content = artifact.read_bytes()
    artifact.write_bytes(b"x" * 1000)
    done = build(world, world.sigstore)
    assert (done.code, "changed since it was built" in done.err) == (1, True)
    artifact.write_bytes(content)
    world.git("commit", "--quiet", "--allow-empty", "--message", "Later")
    done = build(world, world.sigstore)
    assert (done.code, "never signed" in done.err) == (64, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{config}",), "there is no identity token"),
        (("public",), "there is no identity token"),
        (("{config}", "--identity", "ci@example.net"), "decides itself who signed"),
        (("{sigstore}", "--identity-token", "token"), "asks nobody for a token"),
        (("nosuch",), "there is no nosuch to sign with"),
        (("{config}", "--identity-token", "nosuch"), "cannot be read"),
        (("{out}",), "no local Sigstore instance"),
    ],
)
def test_what_is_missing_is_said_before_an_hour_of_building(
    world: World, builds: list[str], service: Service, words: tuple[str, ...], said: str
) -> None:
    path, _ = config(world, service)
    places = {"config": path, "sigstore": world.sigstore, "out": world.out}
    first, *rest = (word.format(**places) for word in words)
    done = build(world, first, *rest)
    assert (done.code, builds) == (64, []), done.err
    assert said in done.err and "Hint: " in done.err


def test_local_instances_of_rekor_v2(tmp_path: Path) -> None:
    done = kubenode("trust", "local-sigstore", tmp_path / "two", "--rekor", "2")
    assert done.code == 0, done.err
    from kubenode.image import sigstore_local

    assert sigstore_local.load(tmp_path / "two").rekor == 2
    assert kubenode("trust", "local-sigstore", tmp_path / "three", "--rekor", "3").code == 64
