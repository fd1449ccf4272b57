"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from kubenode.cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the result on stdout.")]
FleetFolder = Annotated[Path, typer.Option("-C", "--fleet-dir", help="Folder of the fleet repo.", show_default=True)]
