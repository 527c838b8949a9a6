"""The one change that would make something fit, made to the question itself."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from packager.recipe import split_id

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.select.misses import Miss
    from tui.ask import Ask

_MB = 10**6
_NUMBERS = {
    "--context": ("context", int),
    "--prompt": ("prompt", int),
    "--min-decode-tps": ("min_decode_tps", float),
    "--max-ttft-ms": ("max_ttft_ms", float),
    "--documents-per-second": ("documents_per_second", float),
    "--query-ms": ("query_ms", float),
    "--max-image-tokens": ("max_image_tokens", int),
    "--max-audio-seconds": ("max_audio_seconds", int),
    "--dimension": ("dimension", int),
}
_SIZES = {"--max-artifact-mb": "max_artifact_bytes", "--max-memory-mb": "max_memory_bytes"}


def changed(ask: Ask, miss: Miss, read_target: Callable[[str], Target]) -> Ask:
    """The ask with the change of a miss made to it; `read_target` gives another device by its name.

    Raises PackError where that device cannot be read.
    """
    words = shlex.split(miss.flag)
    for flag, value in zip(words[::2], words[1::2], strict=True):
        ask = _with(ask, flag, value, read_target)
    return ask


def _with(ask: Ask, flag: str, value: str, read_target: Callable[[str], Target]) -> Ask:
    if flag in _NUMBERS:
        name, kind = _NUMBERS[flag]
        return ask.wishing(**{name: kind(value)})
    if flag in _SIZES:
        return ask.wishing(**{_SIZES[flag]: int(value) * _MB})
    if flag == "--max-file-size":
        return ask.wishing(max_file_bytes=int(value.removesuffix("M")) * _MB)
    if flag == "--license":
        return ask.wishing(licenses=(value,))
    if flag == "--min-score":
        test, _, least = value.rpartition("=")
        kept = tuple(pair for pair in ask.wish.min_scores or () if pair[0] != test)
        return ask.wishing(min_scores=(*kept, (test, float(least))))
    if flag == "--target":
        # A machine of the lab is the device that was chosen, and not this one.
        return replace(ask, target=read_target(value), machine=None)
    # A recipe: every one is in the table already, in the cache type of the ask.
    return replace(ask, kv=split_id(value)[2] or ask.kv)
