"""Fixtures of the server's tests."""

from __future__ import annotations

import pytest

from hybridlab.server.settings import TOKEN_VARIABLE

TOKEN = "secret"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """The server asks for this one."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    return TOKEN
