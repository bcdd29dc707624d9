"""Heat maps of ratios around 1: colour says the direction, the cell's words the number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm


def draw_ratios(
    ax: Axes, table: pd.DataFrame, words: pd.DataFrame, *, least: float, most: float
) -> None:
    """A table of ratios from violet (below 1) to orange (above), with `words` of the same shape;
    what lies beyond `least` and `most` has the colour of the end of the scale."""
    shown = table.astype(float).clip(lower=least, upper=most)
    norm = TwoSlopeNorm(1.0, least, most)
    sns.heatmap(shown, ax=ax, cmap="PuOr_r", norm=norm, cbar=False, alpha=0.85, linewidths=0.5)
    for (y, x), value in np.ndenumerate(shown.to_numpy()):
        dark = np.isfinite(value) and abs(norm(value) - 0.5) > 0.35
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10}
        ax.text(x + 0.5, y + 0.5, str(words.iloc[y, x]), color="white" if dark else "black", **look)
    ax.grid(visible=False)
    ax.tick_params(length=0, labelrotation=0)
    ax.set(xlabel="", ylabel="")


def ratio_words(ratio: float, digits: int = 2) -> str:
    """'1.24', '∞', and '–' where there is none."""
    if np.isnan(ratio):
        return "–"
    return "∞" if np.isinf(ratio) else f"{ratio:.{digits}f}"
