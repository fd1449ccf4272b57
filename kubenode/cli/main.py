"""The command on laptops and builders: everything."""

from kubenode.cli import (
    build,
    cluster,
    demo,
    fleet,
    halt,
    lab,
    node,
    plan,
    publish,
    rollback,
    secrets,
    seed,
    trust,
    verify,
)
from kubenode.cli.app import new_app, run

app = new_app()
for module in (
    fleet,
    trust,
    secrets,
    seed,
    plan,
    rollback,
    halt,
    build,
    publish,
    verify,
    node,
    cluster,
    demo,
    lab,
):
    module.register(app)


def main() -> None:
    """Run the command line."""
    run(app)
