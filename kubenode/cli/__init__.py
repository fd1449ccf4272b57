"""The kubenode command: typer commands, and `wire`, which joins ports to hosts.

In: words typed by people and files they name. Out: results on stdout, progress on stderr, an exit code.
Only this package prints or exits; commands import what they need when they run, because nodes are slow to start.
"""
