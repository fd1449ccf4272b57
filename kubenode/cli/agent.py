"""The command on nodes: only what a node does. Images carry this entry point and what it imports, nothing else."""

from kubenode.cli import cluster, node
from kubenode.cli.app import new_app, run

app = new_app()
node.register(app)
cluster.register(app)


def main() -> None:
    """Run the command line."""
    run(app)
