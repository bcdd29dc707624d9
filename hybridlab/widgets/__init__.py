"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from hybridlab.widgets.explorer import pair_explorer
from hybridlab.widgets.hear import hear
from hybridlab.widgets.live import live_view
from hybridlab.widgets.whatif import what_if

__all__ = ["hear", "live_view", "pair_explorer", "what_if"]
