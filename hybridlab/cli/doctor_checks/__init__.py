"""What this machine can and cannot do, and the one command that changes each of it."""

from hybridlab.cli.doctor_checks.base import CHECKS, CheckResult, demo_runs, run_checks

__all__ = ["CHECKS", "CheckResult", "demo_runs", "run_checks"]
