"""The planner with controls: what would another pair take?"""

from __future__ import annotations

from typing import Any

from hybridlab import catalog, planner
from hybridlab.units import format_bytes


def plan_explorer(card: str = "t4") -> Any:
    """Choose card, size, backend, dtype, audio and beams; the predicted bytes follow at once."""
    import ipywidgets as widgets

    output = widgets.HTML()
    controls: dict[str, Any] = {
        "card": widgets.Dropdown(options=list(catalog.CARDS), value=card, description="card"),
        "whisper": widgets.Dropdown(
            options=list(catalog.WHISPER_SIZES), value="medium", description="Whisper"
        ),
        "backend": widgets.Dropdown(options=list(catalog.BACKENDS), description="backend"),
        "dtype": widgets.Dropdown(
            options=list(catalog.BACKEND_DTYPES["openai-whisper"]), description="dtype"
        ),
        "audio_s": widgets.IntSlider(
            value=30, min=30, max=2400, step=30, description="audio, s", continuous_update=False
        ),
        "beams": widgets.IntSlider(value=1, min=1, max=8, description="beams"),
    }

    def dtypes(change: Any) -> None:
        controls["dtype"].options = catalog.BACKEND_DTYPES[change["new"]]

    def update(_: Any = None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        if chosen["dtype"] is not None:
            output.value = plan_html(**chosen)

    controls["backend"].observe(dtypes, names="value")
    for control in controls.values():
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls.values(), output])


def plan_html(
    *, card: str, whisper: str, backend: str, dtype: str, audio_s: float, beams: int
) -> str:
    """The predicted bytes of one pair as a sentence and a bar."""
    plan = planner.plan_pair(
        catalog.card(card),
        catalog.whisper(whisper),
        catalog.voxtral("mini-3b"),
        backend=backend,
        dtype=dtype,
        request=planner.Request(audio_s=audio_s, beams=beams),
    )
    share = min(1.0, plan.utilization)
    verdict = "fits" if plan.fits else "does not fit"
    return (
        f"<p><b>{verdict}</b>: predicted {format_bytes(plan.total_bytes)} of "
        f"{format_bytes(plan.capacity_bytes)} ({plan.utilization:.0%}), margin "
        f"{format_bytes(plan.margin_bytes)}; load peak {format_bytes(plan.load_peak_bytes)}, "
        f"steady {format_bytes(plan.steady_bytes)}, "
        f"request peak {format_bytes(plan.request_peak_bytes)}</p>"
        f'<div style="width:480px;border:1px solid #555"><div style="width:{share:.1%};'
        f'height:1em;background:{"#029e73" if plan.fits else "#d55e00"}"></div></div>'
    )
