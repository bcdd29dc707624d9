"""What models of this process share: how they are loaded, watched and unloaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from hybridlab.models.base import Model
from hybridlab.models.phase_hooks import PhaseProbe
from hybridlab.models.source import check_source, folder_of
from hybridlab.models.weights import one_line_errors, pretrained, random_transformers


class LocalModel(Model):
    """A model that a library holds in this process; a backend says how to build it."""

    _model: Any = None
    _processor: Any = None
    _probe: PhaseProbe

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def module(self) -> Any:
        return self._model

    def load(self) -> None:
        check_source(self.spec)
        self._model = self._build()
        if watched := self._watched():
            self._probe = PhaseProbe(self, **watched)

    @abstractmethod
    def _build(self) -> Any:
        """The model with its weights on the device."""

    def _watched(self) -> Mapping[str, nn.Module]:
        """Modules whose passes are phases: `encoder`, `decoder` and, perhaps, `head`; none where
        torch does not run the model."""
        return {}

    def unload(self) -> None:
        self._model = self._processor = self._probe = None  # type: ignore[assignment]
        self.device.release()


class TransformersModel(LocalModel):
    """Through transformers: the architecture of the catalog with random values, or a released
    folder."""

    #: The model's class in transformers.
    architecture: ClassVar[str]

    @abstractmethod
    def _config(self) -> Any:
        """The architecture."""

    @abstractmethod
    def _make_processor(self) -> Any:
        """Without a hub."""

    @abstractmethod
    def _load_processor(self, folder: Path) -> Any: ...

    def _build(self) -> Any:
        import transformers

        kind = getattr(transformers, self.architecture)
        if self.spec.weights == "random":
            with self._building_processor():
                self._processor = self._make_processor()
            stop = self.first_stop.torch_name
            model = random_transformers(kind, self._config(), self.spec, stop)
        else:
            with one_line_errors(self.spec), self._building_processor():
                self._processor = self._load_processor(folder_of(self.spec))
            model = pretrained(kind, self.spec, self.first_stop)
        return model.to(self.device.torch_name) if self.spec.load_path == "staged" else model
