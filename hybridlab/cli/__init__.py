"""The `hybridlab` command. Heavy imports happen inside the commands that need them."""

from hybridlab.cli import fit, plan, report, run, verdict
from hybridlab.cli.app import app, join_overrides, main

__all__ = ["app", "fit", "join_overrides", "main", "plan", "report", "run", "verdict"]
