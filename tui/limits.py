"""The limits of a need: which there are, where each means something, and how its line reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packager.need.usecases import use_case
from tui import describe

if TYPE_CHECKING:
    from packager.need.workload import Workload

FIELDS = (
    ("context", "Context"),
    ("prompt", "Prompt"),
    ("max_image_tokens", "Picture"),
    ("max_audio_seconds", "Sound"),
    ("min_decode_tps", "Speed"),
    ("max_ttft_ms", "First token"),
    ("max_artifact_bytes", "Files"),
    ("max_memory_bytes", "Memory"),
    ("dimension", "Dimension"),
    ("documents_per_second", "Documents"),
    ("query_ms", "Query"),
    ("prefer", "Prefer"),
)
"""Fields of Workload in the order of their lines, each with what its line is called."""
_LIMITS = {
    "max_image_tokens": "up to {}",
    "max_audio_seconds": "up to {}",
    "min_decode_tps": "at least {}",
    "max_ttft_ms": "within {}",
    "max_artifact_bytes": "up to {}",
    "max_memory_bytes": "up to {}",
    "documents_per_second": "at least {}",
    "query_ms": "within {}",
}
_ONLY_FOR = {
    "min_decode_tps": ("generate",),
    "dimension": ("embed",),
    "documents_per_second": ("embed", "rerank"),
    "query_ms": ("embed",),
}
"""Limits that mean something only where a model gives this."""
INPUTS = ("max_image_tokens", "max_audio_seconds")
"""Limits of what comes in besides text: the prompt holds one of each."""
SOMETIMES = (*_ONLY_FOR, *INPUTS)
"""Limits that some use cases have no line for."""


def flag(field: str) -> str:
    """What a limit is called on the command line."""
    return f"--{field.replace('_bytes', '_mb').replace('_', '-')}"


def applies(field: str, base: Workload) -> bool:
    """Whether a limit means anything for the use case."""
    if field == "max_image_tokens":
        return base.pictures
    if field == "max_audio_seconds":
        return base.sound
    task = use_case(base.use_case).task
    return task in _ONLY_FOR.get(field, (task,))


def reads(field: str, value: Any) -> str:
    """A limit as its line shows it."""
    if field == "prefer":
        return str(value)
    text = describe.quantity(field, value)
    return _LIMITS.get(field, "{}").format(text) if value else text
