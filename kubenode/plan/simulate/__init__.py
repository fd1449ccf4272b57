"""What a rollout will look like: the planner's own decisions, played forward over a model of machines and cluster.

In: the desired states, what nodes reported, the time. Out: a `Timeline`. Start with `run.simulate`; `machine` and
`cluster` say what an action changes, `durations` how long it is assumed to take, `waiting` who has to look again.
Pure and deterministic: nothing is asked, the clock is an argument, and everything is assumed to succeed.
"""
