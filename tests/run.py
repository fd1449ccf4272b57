"""Every check in order, cheapest first: `./run test [--fast] [--yes]`. Ends with one sentence and an exit code."""

import os
import sys
import time
from pathlib import Path
from subprocess import run

from kubenode.host import requirements

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

LINTERS = (
    ("ruff check", [BIN / "ruff", "check", "."]),
    ("ruff format", [BIN / "ruff", "format", "--check", "."]),
    ("mypy --strict", [BIN / "mypy"]),
    ("import contracts", [BIN / "lint-imports", "--no-cache"]),
)

TOOLS = (
    requirements.Requirement("age", "sealed secrets, read by another program", ("age",)),
    requirements.Requirement("groff-base", "manual pages", ("groff",)),
    requirements.Requirement("haproxy", "the lab's load balancer", ("haproxy", "/usr/sbin/haproxy")),
)
"""Programs that tests run beside our own; without them those tests are skipped, so here nothing is left out."""


def main() -> int:
    fast = "--fast" in sys.argv[1:]
    unknown = [word for word in sys.argv[1:] if word not in ("--fast", "--yes")]
    if unknown:
        print(f"unknown option {unknown[0]}: ./run test [--fast] [--yes]", file=sys.stderr)
        return 64
    pytest = [BIN / "python", "-m", "pytest", "-p", "no:cacheprovider"]
    quick = ["-q", "-m", "not vm and not kubernetes", "--numprocesses=auto", "--dist=worksteal"]
    steps = [*LINTERS, ("tests", [*pytest, *quick, "--cov=kubenode", "--cov-report=term:skip-covered"])]
    if not fast:
        steps.append(("virtual machines", [*pytest, "-v", "-s", "-m", "vm"]))
    needed = requirements.missing(
        TOOLS + requirements.LAPTOP + (requirements.DISKS if fast else requirements.BUILDER + requirements.LAB)
    )
    if needed:
        command = " ".join(requirements.install_command(needed))
        if "--yes" not in sys.argv[1:] and os.environ.get("CI") != "true":
            print(f"Missing system packages. Install them with: {command}   (or call this again with --yes)")
            return 1
        print(f"$ {command}", flush=True)
        requirements.install(needed)
    env = {**os.environ, "COVERAGE_FILE": str(ROOT / ".coverage")}
    failed = []
    for name, argv in steps:
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        code = run([str(word) for word in argv], check=False, cwd=ROOT, env=env).returncode
        print(
            f"== {name}: {'ok' if code == 0 else f'FAILED ({code})'} after {time.monotonic() - start:.0f} s", flush=True
        )
        if code != 0:
            failed.append(name)
            if name != "tests" and steps.index((name, argv)) >= len(LINTERS):
                break
    if failed:
        print(f"Failed: {', '.join(failed)}.")
        return 1
    print("All checks passed" + (" (virtual machines left out)." if fast else "."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
