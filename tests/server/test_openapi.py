"""What the routes say of themselves is what they do: schemathesis sends what the description allows
and forbids, and reads every answer by it."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import File

from hybridlab.server.bodies import HybridForm
from hybridlab.server.http import new_app
from tests.server.doors import TOKEN, doors
from tests.server.fuzz import fuzz

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


@pytest.mark.parametrize(("queue", "most"), [(16, 16), (64, 64), (500, 95)])
def test_the_description_says_how_many_questions_a_request_may_ask(queue: int, most: int) -> None:
    """Fields of a form are bounded too."""
    app = new_app("a", secured=False, queue=queue)

    @app.post("/v1/hybrid")
    async def hybrid(form: Annotated[HybridForm, File()]) -> None:
        """Described as the server's and the gateway's."""

    form = app.openapi()["components"]["schemas"]["HybridForm"]
    assert form["properties"]["question"]["maxItems"] == most
