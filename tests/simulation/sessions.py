"""Sessions of notebooks on a simulated card, and what tests ask of their rows."""

from __future__ import annotations

from functools import partial

import pandas as pd

from hybridlab.results.schema import is_time
from tests import sessions

open_session = partial(sessions.open_session, device="simulated:t4", trials=1)


def has_no_times(table: pd.DataFrame) -> bool:
    times = [name for name in table if is_time(str(name))]
    assert times or table.empty
    return bool(table[times].isna().all(axis=None))
