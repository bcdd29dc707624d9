"""What the routes say of themselves is what they do: schemathesis sends what the description allows
and forbids, and reads every answer by it."""

from __future__ import annotations

import httpx

from tests.server.conftest import TOKEN
from tests.server.fuzz import fuzz, served

#: Fixed: each run of the suite sends the same.
SEED = 1
EXAMPLES = 10
INFERENCE = ("/v1/audio/transcriptions", "/v1/chat/completions", "/v1/hybrid")


def test_everything_that_is_sent_gets_an_answer_as_described() -> None:
    with served() as server:
        found = fuzz(server.url, token=TOKEN, examples=EXAMPLES, seed=SEED)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        described = httpx.get(f"{server.url}/openapi.json", headers=headers).json()["paths"]
    assert found.ok, found.told
    assert found.requests > 250
    assert set(INFERENCE) < set(described)
    for route in described:
        assert server.answers[route, 200], f"{route} never answered: {server.answers}"
        assert server.answers[route, 405], route
    for route in INFERENCE:
        assert server.answers[route, 400], route
