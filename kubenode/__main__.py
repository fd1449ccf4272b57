"""`python -m kubenode`: the same as the `kubenode` command."""

from kubenode.cli.main import main

main()
