"""What this machine can and cannot do, and the one command that mends each lack."""

from hybridlab.cli.doctor_checks.checks import CHECKS, demo_runs, examine
from hybridlab.cli.doctor_checks.finding import Finding, State

__all__ = ["CHECKS", "Finding", "State", "demo_runs", "examine"]
