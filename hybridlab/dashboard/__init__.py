"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from hybridlab.dashboard.explorer import pair_explorer
from hybridlab.dashboard.live import live_view, sparkline

__all__ = ["live_view", "pair_explorer", "sparkline"]
