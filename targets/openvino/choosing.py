"""The next token of an answer, by logits and the settings of openvino-genai: for graphs that are
run here, where its pipelines choose by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Any: the engine's own object of settings.


class Chooser:
    """The likeliest token, or with `do_sample` one by chance: temperature, then the `top_k`
    likeliest, then the fewest that hold `top_p`, then those of `min_p` times the likeliest."""

    def __init__(self, config: Any, prompt: Sequence[int]) -> None:
        self._config = config
        self._seen = list(dict.fromkeys(prompt))
        self._draw = np.random.default_rng(int(config.rng_seed))

    def next(self, logits: NDArray[np.float32]) -> int:
        """Of logits (vocabulary,)."""
        config = self._config
        scores = logits.astype(np.float64)
        if config.repetition_penalty != 1.0:
            own = scores[self._seen]
            penalty = config.repetition_penalty
            scores[self._seen] = np.where(own > 0, own / penalty, own * penalty)
        token = self._drawn(scores) if config.do_sample else int(scores.argmax())
        self._seen.append(token)
        return token

    def _drawn(self, scores: NDArray[np.float64]) -> int:
        config = self._config
        order = np.argsort(-scores, kind="stable")[: min(int(config.top_k), len(scores)) or None]
        shares = np.exp((scores[order] - scores[order[0]]) / config.temperature)
        shares /= shares.sum()
        before = np.cumsum(shares) - shares
        least = float(getattr(config, "min_p", 0.0) or 0.0) * shares[0]
        kept = (before < config.top_p) & (shares >= least)
        # The likeliest stays whatever is asked.
        kept[0] = True
        shares = np.where(kept, shares, 0.0)
        return int(order[self._draw.choice(len(order), p=shares / shares.sum())])
