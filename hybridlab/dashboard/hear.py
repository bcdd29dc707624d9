"""Listen to a request beside what was said about it."""

from __future__ import annotations

from typing import Any

from hybridlab import catalog
from hybridlab.records import Part


def show_clip(part: Part, case_id: str) -> Any:
    """Listen to the first clip of a case beside what was said about it."""
    from IPython.display import Audio, Markdown

    trials = part.table("trials")
    own = trials[trials["case_id"] == case_id]
    if own.empty:
        return Markdown("No request of this case was served.")
    from hybridlab.audio import load_clips

    clips = {clip.id: clip for clip in load_clips(part.params.audio)}
    return Audio(clips[own.iloc[0]["clip_id"]].samples(), rate=catalog.SAMPLE_RATE_HZ)
