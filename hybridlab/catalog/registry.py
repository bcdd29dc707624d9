"""One list of each kind of thing; whatever names, checks or draws such things reads it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Protocol, TypeVar

from hybridlab.errors import ParameterError


class Named(Protocol):
    @property
    def name(self) -> str: ...


Member = TypeVar("Member", bound=Named)


class Registry(dict[str, Member]):
    """Members by name, in the order of their registration. `registry[name]` of a name that is not
    known is a `ParameterError` that lists the good ones; `kind` says what the name is of."""

    def __init__(self, kind: str, members: Iterable[Member] = ()) -> None:
        super().__init__()
        self.kind = kind
        for member in members:
            self.register(member)

    def register(self, member: Member) -> Member:
        """Add a member; `ValueError` where its name is taken."""
        if member.name in self:
            raise ValueError(f"{self.kind} {member.name!r} is registered already")
        self[member.name] = member
        return member

    def __missing__(self, name: str) -> Member:
        raise ParameterError.unknown_name(self.kind, name, self)


def load(path: str) -> Any:
    """What a registry names as `module:attribute`, imported only now: registries are read where
    torch and the libraries of models are not."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
