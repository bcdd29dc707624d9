"""Parameters of `notebooks/start.ipynb`, which runs the numbered notebooks and is none of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, model_validator

from hybridlab import catalog
from hybridlab.catalog.device_names import PREFIX
from hybridlab.config.notebook_params import NotebookParams
from hybridlab.config.params import NOTEBOOKS, parameters_of, split
from hybridlab.config.preset_files import (
    AUTO,
    COLAB_PRESET,
    NONE,
    has_gpu,
    preset_values,
    resolve,
)

#: What `auto` measures where there is no Colab with a GPU: minutes on any machine.
SMALL_PRESET = "pocket"
SMALL_NOTEBOOKS = ("02", "04", "07")
#: What a simulated card is asked.
SIMULATED_CARD = "t4"
SIMULATED_PRESET = "t4-simulated"
SIMULATED_NOTEBOOKS = ("02",)


class StartParams(NotebookParams, BaseModel):  # as Params
    """`preset` is what is measured here, `notebooks` in which of them (none: in all eight);
    `overrides` replace its parameters. `simulate` is a card of the catalog, '' for none; `auto` is
    a T4 where there is no GPU."""

    notebook: ClassVar[str] = "start"

    preset: str = AUTO
    notebooks: list[str] | Literal["auto"] = "auto"
    overrides: dict[str, Any] = {}
    simulate: str = AUTO
    output_dir: str = ""
    headless: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Everything that the runs will be asked, before anything is shown or run."""
        models = [parameters_of(name) for name in self.measured_notebooks or NOTEBOOKS]
        split({"preset": NONE, **self.measured_values}, models)
        if self.simulate not in (AUTO, ""):
            catalog.card(self.simulate)
        return self

    @property
    def measured_preset(self) -> str:
        """The preset that is measured here."""
        return resolve(self.preset) or SMALL_PRESET

    @property
    def measured_values(self) -> dict[str, Any]:
        """Its parameters under `overrides`, as a run of it has them."""
        return {**preset_values(self.measured_preset), **self.overrides}

    @property
    def measured_notebooks(self) -> list[str]:
        """Numbers or names; empty for all of them."""
        if self.notebooks != AUTO:
            return list(self.notebooks)
        return [] if self.measured_preset == COLAB_PRESET else list(SMALL_NOTEBOOKS)

    @property
    def simulated_card(self) -> str:
        """The card to simulate; '' for none."""
        if self.simulate != AUTO:
            return self.simulate
        return "" if has_gpu() else SIMULATED_CARD

    @property
    def simulated_values(self) -> dict[str, Any]:
        """What the simulated card is asked beside its preset: sizes alone, one way of loading."""
        return {"device": f"{PREFIX}{self.simulated_card}", "load_orders": []}
