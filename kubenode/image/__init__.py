"""Recipe in, release artifacts out: root, verity, UKI and disk image, built by mkosi.

In: a `BuildRequest` (build.py). Out: a folder of artifacts and the facts about them.
Nothing here decides what a node runs, reads the fleet repo's trust, or is imported by `lab` or `agent`.
"""
