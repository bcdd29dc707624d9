"""The `hybridlab` command: a module for each command, imported when it is called."""

from hybridlab.cli.app import main

__all__ = ["main"]
