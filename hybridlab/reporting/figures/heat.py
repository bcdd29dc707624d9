"""Heat maps of ratios around 1: colour says the direction, the cell's words the number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm


class Heat:
    """A table of ratios drawn from violet (below 1) to orange (above); what lies beyond `least` and
    `most` has the colour of the end of the scale."""

    def __init__(self, ax: Axes, table: pd.DataFrame, *, least: float, most: float) -> None:
        self.ax = ax
        self.norm: Any = TwoSlopeNorm(1.0, least, most)
        self.shown = table.clip(lower=least, upper=most).to_numpy(dtype=float)
        ax.imshow(self.shown, cmap="PuOr_r", norm=self.norm, aspect="auto", alpha=0.85)
        ax.set_yticks(range(table.shape[0]), [str(name) for name in table.index])
        ax.set_xticks(range(table.shape[1]), [str(name) for name in table.columns])
        ax.tick_params(length=0)
        ax.grid(visible=False)

    def look(self, y: int, x: int) -> dict[str, Any]:
        """How words in a cell are drawn: white on a dark colour."""
        value = self.shown[y, x]
        dark = np.isfinite(value) and abs(self.norm(value) - 0.5) > 0.35
        return {"ha": "center", "color": "white" if dark else "black"}


def ratio_words(ratio: float, digits: int = 2) -> str:
    """'1.24', '∞', and '–' where there is none."""
    if np.isnan(ratio):
        return "–"
    return "∞" if np.isinf(ratio) else f"{ratio:.{digits}f}"
