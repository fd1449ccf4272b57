"""Pure decisions: what one node does next, and why.

In: `DesiredState` (git), `Observed` (the machine), `Journal` (what cannot be observed) and the time.
Out: one `Decision`. Start with `decide`; `slots` and `hops` hold the facts it uses, `windows` and `backoff` its gates.
No I/O, no clock, no state: the same input gives the same decision on a laptop and on a node, and nothing is raised.
(Time zones are read by `zoneinfo` from the system's own tables; one that is missing counts as a window that is closed.)
"""
