"""Pure decisions about Kubernetes: who may change what, and when.

In: `plan.node.Node` (git, machine, cluster, journal, time). Out: a decision, or None when a rule has nothing to say.
`skew` knows versions, `gates` what may stop anything that disturbs, `rollout` order, waves and room, `leases` who
works; `control_plane` is pass one, `restart` pass two, `joining` the way in, `upkeep` what is due without an update.
A node that waits for others holds nothing: `leases.let_go` sees to it for every rule at once.
"""
