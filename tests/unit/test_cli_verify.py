"""`kubenode verify` explains a refusal: which file, who signed, who would be accepted, what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cliworld import OLD, World, build_release, kubenode

from kubenode.host.clock import SystemClock
from kubenode.image.sign import LocalSigner
from kubenode.trust.manifest import BUNDLE_NAME, MANIFEST_NAME, encode, parse_statement
from kubenode.trust.provenance import Provenance


def resigned(world: World, version: str, **changes: object) -> Path:
    """Build a release whose provenance says something else, sign it and publish it."""
    folder = build_release(world, version)
    manifest, provenance = parse_statement((folder / MANIFEST_NAME).read_bytes())
    other: Provenance = replace(provenance, **changes)  # type: ignore[arg-type]
    statement = encode(manifest, other)
    (folder / MANIFEST_NAME).write_bytes(statement)
    bundle = LocalSigner(world.sigstore, "builder@homelab.internal", SystemClock()).sign(statement)
    (folder / BUNDLE_NAME).write_bytes(bundle)
    assert world.run("publish", folder, "--store", world.store).code == 0
    return folder


def test_who_signed_and_who_could_have(world: World) -> None:
    folder = build_release(world, "2026.11.9", "mallory@example.net")
    assert world.run("publish", folder, "--store", world.store).code == 0
    done = world.run("verify", folder, "--channel", "beta")
    assert (done.code, done.out) == (3, "")
    lines = done.err.splitlines()
    said = {
        line[:11].strip(): line[11:]
        for line in lines
        if line[:11].strip() in ("Release", "File", "Signed by", "Accepted")
    }
    assert said["File"] == "manifest.sigstore.json"
    assert said["Signed by"].startswith("'mallory@example.net' (by 'https://")
    assert said["Accepted"].startswith("for beta: 'builder@homelab.internal' (by 'https://")
    assert any(line.startswith("Hint: ") and "trust/policy.yaml" in line for line in lines)
    assert done.last == "Refused (BuilderNotAllowed)."
    facts = lines[1 : next(number for number, line in enumerate(lines) if line.startswith("Error:"))]
    assert max(len(line) for line in facts if " /" not in line) <= 100
    verdict = json.loads(world.run("verify", folder, "--channel", "beta", "-o", "json").out)
    assert (verdict["file"], "mallory" in verdict["signer"]) == ("manifest.sigstore.json", True)


@pytest.mark.parametrize(
    ("attack", "file", "reason"),
    [
        ("bundle", "manifest.sigstore.json", "BundleInvalid"),
        ("manifest", "manifest.json", "ManifestDigestMismatch"),
        ("artifact", f"kubenode_{OLD}.efi", "ArtifactSizeMismatch"),
        ("root", "trust/sigstore/trusted_root.json of the fleet repo", "TrustedRootInvalid"),
    ],
)
def test_which_file(world: World, attack: str, file: str, reason: str) -> None:
    paths = {
        "bundle": world.out / OLD / BUNDLE_NAME,
        "manifest": world.out / OLD / MANIFEST_NAME,
        "artifact": world.out / OLD / f"kubenode_{OLD}.efi",
        "root": world.fleet / "trust" / "sigstore" / "trusted_root.json",
    }
    paths[attack].write_bytes(b"{}")
    done = world.run("verify", world.out / OLD, "--channel", "beta")
    assert f"File       {file}\n" in done.err
    assert done.last == f"Refused ({reason})."


def test_an_accepted_release_names_its_source(prepared: World) -> None:
    done = prepared.run("verify", prepared.out / OLD, "--channel", "beta")
    assert done.code == 0
    assert "by its recipe images/node.yaml" in done.last
    manifest, provenance = parse_statement((prepared.out / OLD / MANIFEST_NAME).read_bytes())
    assert f"built from commit {provenance.fleet_commit[:12]}" in done.last
    assert manifest.image == "node"


def test_a_commit_of_another_history(world: World) -> None:
    done = world.run("verify", resigned(world, "2026.11.9", fleet_commit="03" * 20), "--channel", "beta")
    assert (done.code, done.last) == (3, "Refused (ProvenanceMismatch).")
    assert "File       manifest.json\n" in done.err


def test_a_commit_of_a_branch_that_nodes_do_not_follow(world: World) -> None:
    world.git("checkout", "--quiet", "-b", "idea")
    world.git("commit", "--quiet", "--allow-empty", "--message", "An idea")
    folder = resigned(world, "2026.11.9", fleet_commit=world.head)
    world.git("checkout", "--quiet", "-")
    done = world.run("verify", folder, "--channel", "beta")
    assert (done.code, done.last) == (3, "Refused (ProvenanceMismatch).")
    assert "not on the first-parent history" in done.err


def test_another_recipe_than_the_reviewed_one(world: World) -> None:
    done = world.run("verify", resigned(world, "2026.11.9", recipe_sha256="00" * 32), "--channel", "beta")
    assert (done.code, done.last) == (3, "Refused (ProvenanceMismatch).")
    assert "images/node.yaml" in done.err


def test_without_history_it_says_what_was_not_compared(world: World) -> None:
    import shutil

    shutil.copytree(world.fleet, world.top / "plain", ignore=shutil.ignore_patterns(".git"))
    done = kubenode("verify", world.out / OLD, "-C", world.top / "plain", "--channel", "beta")
    assert (done.code, "not compared because" in done.last) == (0, True)
    shallow = world.top / "shallow"
    # git takes no address with a space in it for a shallow clone.
    bare = world.top.parent / "bare.git"
    world.git("clone", "--quiet", "--bare", ".", bare)
    world.git("clone", "--quiet", "--depth=1", bare.as_uri(), shallow)
    done = kubenode("verify", world.out / OLD, "-C", shallow, "--channel", "beta")
    assert (done.code, "this clone is shallow" in done.last) == (0, True), done.err
