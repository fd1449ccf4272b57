"""Fixtures for all unit tests."""

from cliworld import prepared, world

__all__ = ["prepared", "world"]
