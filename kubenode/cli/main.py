"""The command on laptops and builders: everything."""

from kubenode.cli import (
    apply,
    build,
    cluster,
    demo,
    doctor,
    fleet,
    halt,
    lab,
    node,
    plan,
    publish,
    rollback,
    secrets,
    seed,
    status,
    trust,
    verify,
)
from kubenode.cli.app import new_app, run

app = new_app(completion=True)
for module in (
    fleet,
    trust,
    secrets,
    seed,
    plan,
    apply,
    status,
    rollback,
    halt,
    build,
    publish,
    verify,
    node,
    cluster,
    demo,
    doctor,
    lab,
):
    module.register(app)


def main() -> None:
    """Run the command line."""
    run(app)
