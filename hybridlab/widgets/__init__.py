"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from hybridlab.widgets.explorer import pair_explorer
from hybridlab.widgets.live import live_view
from hybridlab.widgets.report import download, inline_report
from hybridlab.widgets.request_player import request_player
from hybridlab.widgets.watched_run import watched_run
from hybridlab.widgets.whatif import what_if

__all__ = [
    "download",
    "inline_report",
    "live_view",
    "pair_explorer",
    "request_player",
    "watched_run",
    "what_if",
]
