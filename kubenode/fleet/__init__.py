"""The files of a fleet repo in, its documents, problems and desired states out.

In: a mapping from repo path to bytes (a trusted tree on a node, a folder on a laptop). `load` reads what a node needs,
`validate` finds every problem, `desired` says what one node should be, `promote` and `new` write documents.
Nothing here reads the fleet's files itself, runs git or asks for the time; only `schemas` reads package data.
"""
