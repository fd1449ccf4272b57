"""Fixtures for all unit tests."""

from cliworld import prepared, world
from clusterworld import cluster, declared

__all__ = ["cluster", "declared", "prepared", "world"]
