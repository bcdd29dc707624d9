"""What the routes say of themselves is what they do: schemathesis sends what the description allows
and forbids, and reads every answer by it."""

from __future__ import annotations

import pytest

from tests.serve.doors import TOKEN, doors
from tests.serve.fuzz import fuzz

#: Fixed: each run of the suite sends the same.
SEED = 1
EXAMPLES = 10
ROUTES = (
    "/v1/models",
    "/v1/audio/transcriptions",
    "/v1/chat/completions",
    "/v1/hybrid",
    "/health/live",
    "/health/ready",
    "/metrics",
)


@pytest.mark.parametrize("name", ["server", "gateway"])
def test_everything_that_is_sent_gets_an_answer_as_described(name: str) -> None:
    with doors() as served:
        found = fuzz(served.urls[name], token=TOKEN, examples=EXAMPLES, seed=SEED)
    assert found.ok, found.told
    assert found.requests > 250
    answers = served.answers[name]
    for route in ROUTES:
        assert answers[route, 200], f"{route} never answered: {answers}"
        assert answers[route, 405], route
    for route in ROUTES[1:4]:
        assert answers[route, 400], route
