"""The only code that touches the operating system, the network and the clock.

In: calls through the protocols of `kubenode.ports`. Out: observations and effects. No decisions are made here.
"""
