"""The steps of a training of a model with a tower: rates over time, and what moves each matrix."""

from __future__ import annotations

import sys
import time

import torch
from torch import nn
from torch.nn import functional

_MATRIX_RATE, _OTHER_RATE = 4e-3, 3e-3
_WARM_UP, _LEVEL_UNTIL = 30, 0.6


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate."""
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / (steps * (1 - _LEVEL_UNTIL)))


def next_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token given those before it: logits (rows, tokens, vocabulary) and
    labels (rows, tokens), -100 for what need not be foreseen."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class Stepper:
    """Muon for the matrices inside, AdamW for embeddings, convolutions, patches and vectors."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._model, self._steps = model, steps
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if inside else others).append(parameter)
        muon = torch.optim.Muon(
            matrices,
            lr=_MATRIX_RATE,
            weight_decay=0.05,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        adam = torch.optim.AdamW(others, lr=_OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        self._optimizers: list[torch.optim.Optimizer] = [muon, adam]
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        self._full = [(group, group["lr"]) for group in groups]
        self._began = time.process_time()

    def step(self, number: int, loss: torch.Tensor) -> None:
        """Move every parameter against the loss; `number` counts from 0."""
        for group, full in self._full:
            group["lr"] = full * rate(number, self._steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def tell(self, number: int, *losses: torch.Tensor) -> None:
        """Every 20 steps: the losses and the processor's seconds so far, to stderr."""
        if number % 20 == 0:
            shown = "  ".join(f"{loss.item():.3f}" for loss in losses)
            spent = time.process_time() - self._began
            print(f"{number:5d}  {shown}  {spent:.0f} s", file=sys.stderr, flush=True)
