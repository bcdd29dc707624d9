"""The table of checks, and how they are run: none can stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hybridlab.cli.doctor_checks.finding import Finding

Check = Callable[[], Finding | Sequence[Finding]]


def _named(module: str, function: str) -> Check:
    """A check that is imported as it begins: what it needs may be the very thing that is
    missing."""

    def run() -> Finding | Sequence[Finding]:
        from importlib import import_module

        found: Finding | Sequence[Finding] = getattr(
            import_module(f"hybridlab.cli.doctor_checks.{module}"), function
        )()
        return found

    return run


CHECKS: Mapping[str, Check] = {
    "system": _named("machine", "place"),
    "Python": _named("software", "python"),
    "packages": _named("software", "packages"),
    "extras": _named("software", "extras"),
    "processors": _named("machine", "processors"),
    "host memory": _named("machine", "memory"),
    "memory limit": _named("machine", "limits"),
    "disk": _named("machine", "disk"),
    "GPU": _named("machine", "gpu"),
    "faster-whisper": _named("software", "faster_whisper"),
    "Jupyter kernel": _named("software", "kernel"),
    "notebooks": _named("software", "notebooks"),
    "audio": _named("software", "audio"),
    "browser": _named("software", "browser"),
    "hub": _named("weights", "hub"),
    "presets": _named("weights", "preset_rows"),
}
#: Asked only on request: it needs a network.
ONLINE: Mapping[str, Check] = {"hub answers": _named("weights", "reachable")}
#: A check without which the demo is not known to run.
NEEDED = ("Python", "packages", "Jupyter kernel", "notebooks", "audio", "presets")


def examine(checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """Every finding as it comes. A check that fails is a finding with the fault in it."""
    for name, check in checks.items():
        try:
            found = check()
        except Exception as error:  # whatever is missing, the other checks still say their word
            yield Finding(
                about=name,
                state="broken" if name in NEEDED else "lacks",
                says=f"could not be checked: {type(error).__name__}: {error}",
                means="something that it needs is missing or damaged",
                mend="pip install --editable .",
            )
        else:
            yield from [found] if isinstance(found, Finding) else found


def demo_runs(findings: Sequence[Finding]) -> bool:
    """Whether nothing was found that the demo cannot do without."""
    return all(finding.state != "broken" for finding in findings)
