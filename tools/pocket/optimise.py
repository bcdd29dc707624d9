"""The one loop in which every stage of the pocket models is trained."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

LOG_EVERY = 100
#: Half a cosine ends at this share of the peak learning rate.
RATE_FLOOR = 0.05
WARMUP_STEPS = 60
BETAS = (0.9, 0.98)


def optimise(
    parameters: Iterable[nn.Parameter],
    loss_of_next_batch: Callable[[], Tensor],
    *,
    label: str,
    steps: int,
    peak_rate: float,
    weight_decay: float = 0.01,
) -> None:
    """AdamW over `steps` batches with one cycle of the learning rate.

    Matrices multiply in bfloat16 under autocast (twice as fast where the processor has it, the
    same result where it has not); weights and residuals stay float32.
    """
    trained = list(parameters)
    optimizer = torch.optim.AdamW(
        trained, lr=peak_rate, weight_decay=weight_decay, betas=BETAS, fused=True
    )
    smooth = math.nan
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * one_cycle(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of_next_batch()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        if (step + 1) % LOG_EVERY == 0:
            logger.info("%s, step %d of %d, loss %.4f", label, step + 1, steps, smooth)


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine down to the floor."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (RATE_FLOOR + (1 - RATE_FLOOR) * cosine)
