"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from hybridlab.widgets.explorer import pair_explorer
from hybridlab.widgets.live import live_view
from hybridlab.widgets.request_player import request_player
from hybridlab.widgets.whatif import what_if

__all__ = ["live_view", "pair_explorer", "request_player", "what_if"]
