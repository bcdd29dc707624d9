"""Greedy decoding of a Voxtral without the bookkeeping that `generate` does at every step, and
of several jobs behind one prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class DecodeState:
    """Where decoding stands: the KV `cache` with so many positions, which of them count (`mask`:
    (rows, length), 0 for padding; None where all do), and the `logits` of what comes next:
    (rows, vocabulary)."""

    cache: Any
    length: int
    mask: Tensor | None
    logits: Tensor


class GreedyDecoder:
    """Says what `generate(do_sample=False)` says, token by token, in a plain loop.

    Bound by the weights that every token reads; the head is computed for the last position only.
    `may_end=False` never says the end of the sequence, so that the work is fixed.
    """

    def __init__(self, model: Any, *, may_end: bool) -> None:
        self.model = model
        ends = model.generation_config.eos_token_id
        self.ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=model.device)
        self.may_end = may_end

    def prefill(self, inputs: Mapping[str, Tensor]) -> DecodeState:
        """Encode the audio and read the whole prompt, padded on the left where rows differ."""
        from transformers import DynamicCache

        cache, mask = DynamicCache(), inputs["attention_mask"]
        padded = bool((mask == 0).any())
        output = self.model(
            input_ids=inputs["input_ids"],
            input_features=inputs["input_features"],
            attention_mask=mask if padded else None,
            position_ids=_positions(mask) if padded else None,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return DecodeState(cache, mask.shape[1], mask if padded else None, output.logits[:, -1])

    def extend(self, heading: DecodeState, ids: Tensor) -> None:
        """Read more tokens, (rows, count), behind what was read."""
        mask, positions = heading.mask, None
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = _positions(mask)[:, -ids.shape[1] :]
        hidden = self.model.model.language_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=heading.cache,
            use_cache=True,
        ).last_hidden_state
        heading.mask, heading.length = mask, heading.length + ids.shape[1]
        heading.logits = self.model.lm_head(hidden[:, -1])

    def say(
        self,
        heading: DecodeState,
        max_new_tokens: int,
        on_step: Callable[[list[int]], bool] | None = None,
    ) -> list[list[int]]:
        """Each row's tokens up to its end or `max_new_tokens`; the end itself is not among them.
        `on_step` is told the token of each row at every step; False from it stops."""
        said: list[Tensor] = []
        ended = torch.zeros_like(heading.logits[:, 0], dtype=torch.bool)
        while True:
            token = self._next(heading.logits)
            ended |= torch.isin(token, self.ends)
            said.append(token)
            if on_step is not None and not on_step(token.tolist()):
                break
            if len(said) == max_new_tokens or bool(ended.all()):
                break
            self.extend(heading, token[:, None])
        return [self.cut(row) for row in torch.stack(said, dim=1).tolist()]

    def rewind(self, heading: DecodeState, length: int) -> None:
        """Forget everything behind the first `length` positions."""
        behind = heading.length - length
        if behind:
            heading.cache.crop(-behind)
            heading.length = length
            heading.mask = None if heading.mask is None else heading.mask[:, :length]

    def _next(self, logits: Tensor) -> Tensor:
        if not self.may_end:
            logits = logits.index_fill(1, self.ends, -torch.inf)
        return logits.argmax(dim=1)

    def cut(self, row: list[int]) -> list[int]:
        """The row up to its first end, without it."""
        ends = set(self.ends.tolist())
        return next((row[:place] for place, token in enumerate(row) if token in ends), row)


def _positions(mask: Tensor) -> Tensor:
    """Numbers of the tokens that count, from 0; padding gets whatever, as nothing looks at it."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
