"""What this machine can and cannot do, and the one command that mends each lack."""

from hybridlab.doctor.checks import CHECKS, demo_runs, examine
from hybridlab.doctor.finding import Finding, State

__all__ = ["CHECKS", "Finding", "State", "demo_runs", "examine"]
