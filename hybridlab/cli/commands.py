"""The app with all its commands, in the order of their names: for the help, and for calls from
Python."""

from importlib import import_module

from hybridlab.cli.app import COMMANDS, app, module_of

__all__ = ["app"]

for name in COMMANDS:
    import_module(module_of(name))
# some have imported others first
app.registered_commands.sort(key=lambda one: str(one.name or getattr(one.callback, "__name__", "")))
