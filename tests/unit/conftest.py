"""Fixtures for all unit tests."""

from cliworld import prepared, world
from simulateworld import lab

__all__ = ["lab", "prepared", "world"]
