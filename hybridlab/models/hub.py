"""Whether the hub can give a repository: cached, open, or to be had with a token.

A token is looked for only where a repository is closed. Colab keeps its secrets for the notebook's
own process; cases run in others, which are told through the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from hybridlab.errors import WeightsError

HUB_TIMEOUT_S = 5.0
TOKEN_VARIABLE = "HF_TOKEN"


def cached(repository: str) -> bool:
    """Whether the hub's cache on this disk holds this repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def check_hub(repository: str) -> None:
    """`WeightsError` where this repository is neither cached nor to be had, with the fix."""
    from huggingface_hub import constants

    if cached(repository):
        return
    hint = "run once while online, or use weights 'local', 'random' or 'pocket'"
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{repository} is not in the cache and HF_HUB_OFFLINE is set; {hint}")
    try:
        if not is_open(repository):
            hand_down_token(repository)
    except WeightsError:
        raise
    except Exception as error:  # whatever the client raises, the reader's way out is the same
        raise WeightsError(
            f"{repository} is not in the cache and the hub did not answer "
            f"({type(error).__name__}); {hint}"
        ) from None


def is_open(repository: str) -> bool:
    """Whether the hub gives this repository to anybody, asked without a token."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(token=False).model_info(repository, timeout=HUB_TIMEOUT_S)
    except OSError as error:
        if needs_token(error):
            return False
        raise
    return not info.gated


def hand_down_token(repository: str) -> None:
    """Put the reader's token where every case finds it; `WeightsError` without one."""
    from huggingface_hub import get_token

    token = get_token()  # the environment, the login's file, or Colab's secret
    if not token:
        raise WeightsError.no_token(repository)
    os.environ[TOKEN_VARIABLE] = token


def needs_token(error: BaseException) -> bool:
    """Whether the hub refused for want of a token, by this error or by one behind it."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    return any(
        isinstance(one, GatedRepoError)
        or (isinstance(one, HfHubHTTPError) and one.response.status_code in (401, 403))
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
