"""Fixtures for all unit tests."""

from cliworld import prepared, world
from clusterworld import cluster, declared
from simulateworld import lab

__all__ = ["cluster", "declared", "lab", "prepared", "world"]
