"""The command on laptops and builders: everything."""

from kubenode.cli import build, cluster, demo, doctor, fleet, lab, node, plan, publish, secrets, seed, trust, verify
from kubenode.cli.app import new_app, run

app = new_app(completion=True)
for module in (fleet, trust, secrets, seed, plan, build, publish, verify, node, cluster, demo, doctor, lab):
    module.register(app)


def main() -> None:
    """Run the command line."""
    run(app)
