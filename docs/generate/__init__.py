"""Pages that are written from the code, so that they cannot say anything else: `python -m docs.generate`.

docs/errors.md, docs/fleet-format.md, docs/reference/ and docs/man/ come from the error types, the schemas and the
command tree; tests/unit/test_docs_generated.py fails when they are out of date. `python -m docs.generate.pictures`
takes the pictures of the README.
"""
