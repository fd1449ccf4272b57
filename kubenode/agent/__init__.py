"""One tick of the reconciler: follow the fleet, observe, decide, do one thing, look again, report.

In: the ports of `kubenode.ports`. Out: effects through these ports and a `NodeStatus`. Start with `tick`.
`follow` authenticates the fleet repo, `execute` does one action, `postcondition` says whether it worked, `memory`
keeps what cannot be observed, `report` tells people, `health` is the agent's word in a trial boot.
No decision is made here (that is `kubenode.plan`), and the host is known only through the ports.
"""
