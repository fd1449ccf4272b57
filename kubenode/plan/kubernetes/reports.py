"""What a node tells the others: they decide about waves and failures by it."""

from kubenode.model.decision import Decision, PublishReport
from kubenode.model.kubernetes import NodeReport
from kubenode.plan.node import Node


def current(node: Node) -> NodeReport:
    """Return this node's report; `since` is kept as long as nothing that others wait for has changed."""
    assert node.here is not None
    booted = node.observed.booted
    shown = node.me.report if node.me is not None else None
    same = shown is not None and (shown.root_hash, shown.configuration) == (booted.root_hash, node.here.configuration)
    return NodeReport(
        release=booted.version,
        root_hash=booted.root_hash,
        since=shown.since if shown is not None and same else node.now,
        poisoned=frozenset(bad.root_hash for bad in node.journal.poisoned),
        configuration=node.here.configuration,
        commit=node.desired.commit,
        account=shown.account if shown is not None else "",
        at=shown.at if shown is not None else None,
    )


def due(node: Node) -> Decision | None:
    """Return the action that publishes the report when others would act on an old one.

    Not before kubelet is back: how long a node has been healthy is counted from its report.
    """
    if node.me is None or node.observed.booted.trial or not node.back:
        return None
    mine, shown = current(node), node.me.report
    if shown is not None and _told(shown) == _told(mine):
        return None
    return node.act(PublishReport(mine), "The other nodes wait for what this node reports, and its report is old.")


def _told(report: NodeReport) -> tuple[object, ...]:
    return report.release, report.root_hash, report.poisoned, report.configuration
