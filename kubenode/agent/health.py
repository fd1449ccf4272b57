"""The local health gate of a trial boot: the machine's own checks, and whether this agent could repair it.

A release whose agent cannot read the fleet repo could never be replaced by a later one, so it must not be blessed.
Nothing here needs the network: a power cut of a whole site must not roll back an operating system.
"""

from kubenode.agent.tick import Ports, run_tick
from kubenode.errors import ExitCode
from kubenode.ports import CheckResult, Health

AGENT_CHECK = "agent"


def gate(ports: Ports, health: Health) -> tuple[CheckResult, ...]:
    """Return every check of the gate; the boot is good when all are ok. Never raises."""
    return (*health.checks(), _agent(ports))


def _agent(ports: Ports) -> CheckResult:
    """Check that this agent authenticates the stored commit and comes to a decision, without network."""
    try:
        if ports.state.load_trust() is None:
            # The first boot of a new machine, before its first contact: there is nothing to authenticate yet.
            return CheckResult(AGENT_CHECK, True, "this machine has had no contact with its fleet yet")
        result = run_tick(ports, dry_run=True)
    except Exception as error:
        # Whatever a broken agent raises: it did not complete.
        return CheckResult(AGENT_CHECK, False, f"the dry run failed: {type(error).__name__}: {error}")
    if result.status.observed is None or result.exit_code is ExitCode.UNTRUSTED:
        return CheckResult(AGENT_CHECK, False, f"the dry run came to no decision: {result.status.message}")
    return CheckResult(AGENT_CHECK, True, f"commit {result.status.commit} is authentic; {result.status.message}")
