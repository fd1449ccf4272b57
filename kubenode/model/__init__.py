"""The nouns of kubenode: frozen dataclasses and enums, standard library only.

In: nothing. Out: values that every other package passes around. No I/O, no clock, no decisions.
Start with `documents` (what git says), `observed` (what a machine shows), `decision` (what to do).
"""
