"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from hybridlab.dashboard.explorer import plan_explorer, plan_html
from hybridlab.dashboard.hear import show_clip
from hybridlab.dashboard.live import live_view

__all__ = ["live_view", "plan_explorer", "plan_html", "show_clip"]
