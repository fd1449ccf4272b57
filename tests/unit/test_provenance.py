"""Provenance against what is known: the release's document, the fleet's history and its recipe."""

import hashlib
from dataclasses import replace

import pytest
from test_bundle_fixtures import MANIFEST, PROVENANCE, STATEMENT

from kubenode.errors import Untrusted
from kubenode.model.documents import Release
from kubenode.model.version import Version
from kubenode.trust.manifest import check_document, parse_statement
from kubenode.trust.provenance import Source, check_source
from kubenode.trust.reasons import Reason

RECIPE = b"kind: Image\n"
BUILT = replace(PROVENANCE, recipe_sha256=hashlib.sha256(RECIPE).hexdigest())
DOCUMENT = Release(MANIFEST.version, "0" * 64, MANIFEST.root_hash, MANIFEST.kubernetes, MANIFEST.floor)


def test_provenance_is_read_as_it_was_written():
    assert parse_statement(STATEMENT)[1] == replace(PROVENANCE, started_on=PROVENANCE.started_on.replace(microsecond=0))


def test_a_release_of_this_history_and_recipe():
    check_source(BUILT, "node", Source(on_chain=True, recipe=RECIPE))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source(on_chain=False, recipe=RECIPE), "not on the first-parent history"),
        (Source(on_chain=False, recipe=None), "not on the first-parent history"),
        (Source(on_chain=True, recipe=None), "has no images/node.yaml"),
        (Source(on_chain=True, recipe=RECIPE + b"# x\n"), "built by a recipe with the sha256"),
    ],
)
def test_provenance_that_contradicts_the_repo(source: Source, said: str):
    with pytest.raises(Untrusted, match=said) as caught:
        check_source(BUILT, "node", source)
    assert (caught.value.reason, caught.value.subject) == (Reason.PROVENANCE_MISMATCH, BUILT.fleet_commit)
    assert caught.value.hint


def test_the_document_that_people_approved():
    check_document(MANIFEST, DOCUMENT)
    check_document(MANIFEST, replace(DOCUMENT, floor=Version("2026.10.2")))
    check_document(replace(MANIFEST, floor=None), replace(DOCUMENT, floor=None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": Version("2026.11.2")}, "version is 2026.11.1"),
        ({"root_hash": "00" * 32}, r"root hash is abababababababab\.\.\., .* says 0000000000000000\.\.\."),
        ({"kubernetes": "1.35.0"}, r"Kubernetes version is 1\.34\.2, .* says 1\.35\.0"),
        ({"kubernetes": None}, r"Kubernetes version is 1\.34\.2, .* says none"),
        ({"floor": None}, r"floor is 2026\.10\.1, .* says none"),
        ({"floor": Version("2026.9.1")}, r"floor is 2026\.10\.1, .* says 2026\.9\.1"),
    ],
)
def test_a_document_that_says_something_else(changes: dict[str, object], said: str):
    with pytest.raises(Untrusted, match=said) as caught:
        check_document(MANIFEST, replace(DOCUMENT, **changes))  # type: ignore[arg-type]
    assert caught.value.reason == Reason.RELEASE_MISMATCH
