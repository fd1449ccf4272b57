import hashlib
import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from test_bundle_fixtures import CONTENT, MANIFEST, STATEMENT, VERSION, edited, put, signed

from kubenode.errors import HostError, KubenodeError, Untrusted, UsageError
from kubenode.image import publish as module
from kubenode.image.publish import Published, VersionTaken, publish
from kubenode.model.version import Version
from kubenode.trust.reasons import Reason

DIGEST = hashlib.sha256(STATEMENT).hexdigest()


def fill(directory: Path, manifest: bytes = STATEMENT, bundle: bytes | None = None) -> Path:
    directory.mkdir(parents=True)
    for name, content in CONTENT.items():
        (directory / name).write_bytes(content)
    (directory / "manifest.json").write_bytes(manifest)
    (directory / "manifest.sigstore.json").write_bytes(envelope(manifest) if bundle is None else bundle)
    return directory


def envelope(manifest: bytes) -> bytes:
    import base64

    return put(signed().bundle, ("dsseEnvelope", "payload"), base64.b64encode(manifest).decode())


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return fill(tmp_path / "release", bundle=signed().bundle)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "srv" / "store"


def visible(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir() if path.name != ".lock")


def test_a_release_is_published(release: Path, store: Path):
    assert publish(release, store) == Published(Version(VERSION), DIGEST, store / VERSION, True)
    assert visible(store) == [VERSION]
    for name, content in CONTENT.items():
        assert (store / VERSION / name).read_bytes() == content
    published = (store / VERSION / "manifest.json").read_bytes()
    signed().verify(manifest=published, bundle=(store / VERSION / "manifest.sigstore.json").read_bytes())
    assert not {path.name for path in release.iterdir()} ^ {path.name for path in (store / VERSION).iterdir()}


def test_a_web_server_can_read_it(release: Path, store: Path):
    before = os.umask(0o077)
    try:
        publish(release, store)
    finally:
        os.umask(before)
    assert stat.S_IMODE((store / VERSION).stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (store / VERSION).iterdir()} == {0o644}


def test_publishing_again_changes_nothing(release: Path, store: Path):
    publish(release, store)
    before = {path: path.stat().st_mtime_ns for path in (store / VERSION).iterdir()}
    # Signing again gives other bytes, but the release is the same.
    (release / "manifest.sigstore.json").write_bytes(envelope(STATEMENT) + b"\n")
    assert publish(release, store).created is False
    assert {path: path.stat().st_mtime_ns for path in (store / VERSION).iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["predicate"]["runDetails"]["metadata"].update(invocationId="other"),
        lambda d: d["subject"][0].update(name="other.raw"),
    ],
)
def test_a_version_is_immutable(release: Path, store: Path, tmp_path: Path, change: Any):
    publish(release, store)
    other = fill(tmp_path / "other", edited(change))
    for name in {subject["name"] for subject in json.loads((other / "manifest.json").read_bytes())["subject"]}:
        if name not in CONTENT:
            (other / MANIFEST.artifacts[0].name).rename(other / name)
    with pytest.raises(VersionTaken, match="another release") as caught:
        publish(other, store)
    assert "new version" in caught.value.hint
    assert publish(release, store).created is False


def test_another_version_stands_beside_it(release: Path, store: Path, tmp_path: Path):
    publish(release, store)
    other = edited(lambda d: d["predicate"]["buildDefinition"]["externalParameters"].update(version="2026.11.2"))
    assert publish(fill(tmp_path / "other", other), store).created
    assert visible(store) == [VERSION, "2026.11.2"]


def check_refused(release: Path, store: Path, kind: type[KubenodeError]) -> Any:
    with pytest.raises(kind) as caught:
        publish(release, store)
    assert not store.exists() or visible(store) == []
    return caught.value


@pytest.mark.parametrize("name", [*CONTENT, "manifest.json", "manifest.sigstore.json"])
def test_a_missing_file_is_named(release: Path, store: Path, name: str):
    (release / name).unlink()
    assert name in check_refused(release, store, UsageError).message


def test_a_file_that_was_not_signed_is_refused(release: Path, store: Path):
    (release / "extra.raw").write_text("x")
    assert "extra.raw" in check_refused(release, store, UsageError).message


@pytest.mark.parametrize("name", [next(iter(CONTENT)), "manifest.json"])
def test_only_regular_files_are_published(release: Path, store: Path, name: str):
    (release / name).unlink()
    (release / name).mkdir()
    check_refused(release, store, UsageError)
    (release / name).rmdir()
    os.mkfifo(release / name)
    check_refused(release, store, UsageError)


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content + b"x", Reason.ARTIFACT_SIZE),
        (lambda content: content[:-1], Reason.ARTIFACT_SIZE),
        (lambda content: content[:-1] + b"?", Reason.ARTIFACT_DIGEST),
    ],
)
def test_artifacts_are_verified(release: Path, store: Path, name: str, change: Any, reason: Reason):
    (release / name).write_bytes(change(CONTENT[name]))
    found = check_refused(release, store, Untrusted)
    assert (found.reason, found.subject) == (reason, name)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", b"{}", Reason.MANIFEST_INVALID),
        ("manifest.json", b" " * (1 << 21), Reason.MANIFEST_INVALID),
        ("manifest.json", STATEMENT + b"\n", Reason.BUNDLE_PAYLOAD_MISMATCH),
        ("manifest.sigstore.json", b"", Reason.BUNDLE_INVALID),
        ("manifest.sigstore.json", b"{}", Reason.BUNDLE_INVALID),
        ("manifest.sigstore.json", b"[]", Reason.BUNDLE_INVALID),
        ("manifest.sigstore.json", b'{"dsseEnvelope":{"payload":"?"}}', Reason.BUNDLE_INVALID),
        ("manifest.sigstore.json", b'{"dsseEnvelope":{"payload":1}}', Reason.BUNDLE_INVALID),
        ("manifest.sigstore.json", b" " * (1 << 23), Reason.BUNDLE_INVALID),
    ],
    ids=range(9),
)
def test_evidence_that_nobody_could_accept_is_refused(
    release: Path, store: Path, name: str, content: bytes, reason: Reason
):
    (release / name).write_bytes(content)
    assert check_refused(release, store, Untrusted).reason is reason


def test_there_must_be_a_release(tmp_path: Path, store: Path):
    check_refused(tmp_path / "nothing", store, UsageError)


@pytest.mark.parametrize("name", [next(iter(CONTENT)), "manifest.json", "manifest.sigstore.json"])
def test_a_damaged_store_is_noticed(release: Path, store: Path, name: str):
    publish(release, store)
    (store / VERSION / name).unlink()
    with pytest.raises(HostError, match="damaged"):
        publish(release, store)
    shutil.move(store / VERSION, store / "damaged")
    assert publish(release, store).created


def test_an_unusable_store(release: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="publishing"):
        publish(release, tmp_path / "file")


STEPS = ["_copy_artifact", "write_durably", "sync_folder"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_leaves_all_or_nothing(release: Path, store: Path, step: str, call: int, after: bool):
    process = os.fork()
    if process == 0:  # The child kills itself at the step, without any cleaning up.
        genuine = getattr(module, step)
        calls = 0

        def kill(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                os._exit(9)
            genuine(*arguments)
            if calls == call:
                os._exit(9)

        setattr(module, step, kill)
        try:
            publish(release, store)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    complete = (store / VERSION).exists()
    assert complete == (step == "sync_folder" and call == 2)
    if complete:
        assert {path.name for path in (store / VERSION).iterdir()} == {path.name for path in release.iterdir()}
    else:
        assert [name for name in visible(store) if not name.startswith(".publishing-")] == []
    assert publish(release, store).created is not complete
    assert visible(store) == [VERSION]


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_leaves_nothing(release: Path, store: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, step, full)
        assert "No space left" in check_refused(release, store, HostError).message
    assert publish(release, store).created


def test_publishers_at_once(release: Path, store: Path, tmp_path: Path):
    same = [release, *(fill(tmp_path / f"same{number}", bundle=signed().bundle) for number in range(3))]
    other = fill(
        tmp_path / "other", edited(lambda d: d["predicate"]["runDetails"]["metadata"].update(invocationId="other"))
    )
    outcomes: list[str] = []

    def work(directory: Path) -> None:
        try:
            outcomes.append(f"{directory == other} {publish(directory, store).created}")
        except VersionTaken:
            outcomes.append(f"{directory == other} taken")

    threads = [threading.Thread(target=work, args=(directory,)) for directory in [*same, other]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 5
    winner_is_other = "True True" in outcomes
    assert sorted(outcomes) == (
        ["False taken"] * 4 + ["True True"] if winner_is_other else ["False False"] * 3 + ["False True", "True taken"]
    )
    assert visible(store) == [VERSION]


def test_a_publisher_on_another_machine_wins_the_race(release: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    genuine = module._copy_artifact

    def late(source: Path, target: Path, artifact: Any) -> None:
        (store / VERSION).mkdir(exist_ok=True)
        (store / VERSION / "manifest.json").write_text("theirs")
        genuine(source, target, artifact)

    monkeypatch.setattr(module, "_copy_artifact", late)
    with pytest.raises(HostError):
        publish(release, store)
    assert (store / VERSION / "manifest.json").read_text() == "theirs"
