"""Workload: what the user needs from the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Preference = Literal["smallest", "quality", "speed", "balanced"]


@dataclass(frozen=True, slots=True)
class Workload:
    """The need, as flags give it; None means "no limit".

    `context` counts prompt and answer together, `prompt` the tokens of a typical prompt (for TTFT).
    `min_scores` maps a benchmark's name to the least published score. `licenses` lists the licence
    ids that are acceptable; empty means any that permits commercial use or says nothing.
    """

    use_case: str = "chat"
    context: int = 4096
    prompt: int = 512
    min_decode_tps: float | None = None
    max_ttft_ms: float | None = None
    max_artifact_bytes: int | None = None
    max_memory_bytes: int | None = None
    min_scores: dict[str, float] = field(default_factory=dict)
    modality: tuple[str, ...] = ("text",)
    licenses: tuple[str, ...] = ()
    prefer: Preference = "smallest"

    def as_dict(self) -> dict[str, Any]:
        """JSON form, one key per field."""
        return asdict(self)
