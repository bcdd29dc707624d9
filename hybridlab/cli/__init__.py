"""The `hybridlab` command. Heavy imports happen inside the commands that need them."""

from hybridlab.cli import doctor, fit, gateway, new, plan, report, run, serve, simulate, verdict
from hybridlab.cli.app import app, join_overrides, main

__all__ = [
    "app",
    "doctor",
    "fit",
    "gateway",
    "join_overrides",
    "main",
    "new",
    "plan",
    "report",
    "run",
    "serve",
    "simulate",
    "verdict",
]
