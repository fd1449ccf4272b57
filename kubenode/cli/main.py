"""The command on laptops and builders: everything."""

from kubenode.cli import build, cluster, demo, fleet, node, plan, trust
from kubenode.cli.app import new_app, run

app = new_app()
for module in (fleet, trust, plan, build, node, cluster, demo):
    module.register(app)


def main() -> None:
    """Run the command line."""
    run(app)
