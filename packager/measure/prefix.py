"""Warm start: the state behind a fixed prefix of every chat (system prompt, tools) is computed once
and used again.

The state is made where the model runs, and kept in the user's own cache: it is as large as the
cache of its tokens, holds for one engine version and one kind of processor only, and an engine
reads it as its own memory, so that none is taken from anybody else.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from packager.digests import digest_of, key_of
from packager.errors import ExitCode, PackError, usage
from packager.json_values import JsonObject, at, texts_at
from packager.measure.trials import Trial, answer
from packager.process import resolve
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.session import Session

VERSION = 1
"""Raised when the same artifact would give other figures, or kept states mean something else."""

ENDING = ".state"
_NEW_TOKENS = 16
_REPEATS = 3


@runtime_checkable
class StartsWarm(Protocol):
    """What a Runtime has besides where its engine can go on behind a prefix that it knows."""

    warm_start: Literal["file", "process"]
    """Where the state is kept: in a file, so that it outlives the process, or in the process."""


@runtime_checkable
class KeepsPrefix(Protocol):
    """What a Session of such a runtime has."""

    prefix_note: str
    """What became of the prefix of the last answer, as a sentence; empty where the prompt did not
    begin with it."""

    def keep_prefix(self, ids: Sequence[int], file: Path) -> None:
        """Prompts that begin with `ids` and go on start from their state from now on: out of
        a file whose name begins as `file` does, which belongs to these ids alone; where it is not
        there, or does not fit, the state is computed and written."""

    def state_of(self) -> str:
        """What a state depends on beside model and tokens: engine, version, processor."""


def common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The tokens that both begin with."""
    count = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        count += 1
    return list(first[:count])


def keep(model: Session, asked: JsonObject) -> bool:
    """Open a loaded model on the prefix that two prompts share; False where they share none, or the
    session keeps none.

    `asked`: `probes`, two prompts of different users; `folder` of the states; `key`, what names
    model, template and cache type.
    """
    if not isinstance(model, KeepsPrefix):
        return False
    first, second = (model.encode(text) for text in texts_at(asked, "probes"))
    ids = common(first, second)
    if not ids:
        return False
    parts = [VERSION, at(asked, "key", str), model.state_of(), ids]
    folder = Path(at(asked, "folder", str))
    model.keep_prefix(ids, folder / f"{key_of(parts)}{ENDING}")
    return True


def measure(
    report: Report, *, session: str, artifact: str, settings: JsonObject, probes: list[str]
) -> JsonObject:
    """A first token with and without the state of the prefix that the `probes` share.

    Returns `prefix_tokens`, `prefix_sha256` (of the token ids), `state_bytes` (0 for a state in
    the process), `ttft_cold_ms` and `ttft_warm_ms`. Raises PackError: usage where they share
    nothing; exit code 4 where an answer from the state is another one than from the computed
    prefix.
    """
    model: Session = resolve(session)(artifact, settings)
    try:
        first, second = (model.encode(text) for text in probes)
        ids = common(first, second)
        if not ids or not isinstance(model, KeepsPrefix):
            raise usage(
                "The chats of this package share no prefix.",
                "Give --system-prompt or --tools, or leave --warm out.",
            )
        report.note(f"a prefix of {len(ids)} tokens, cold and warm")
        with temporary_folder() as folder:
            file = folder / f"prefix{ENDING}"
            cold = _first_token(model, first)
            model.keep_prefix(ids, file)
            computed = _first_token(model, first)
            _first_token(model, second)
            warm = [_first_token(model, first) for _ in range(_REPEATS)]
            state_bytes = sum(path.stat().st_size for path in folder.glob(f"*{ENDING}"))
    finally:
        model.close()
    if any(trial.tokens != computed.tokens for trial in warm):
        raise PackError(
            "A warm start gives another answer than a cold one.",
            "Leave --warm out: this engine does not restore its state for this model.",
            ExitCode.BUDGET,
        )
    return {
        "prefix_tokens": len(ids),
        "prefix_sha256": digest_of(ids),
        "state_bytes": state_bytes,
        "ttft_cold_ms": 1000 * cold.ttft_s,
        "ttft_warm_ms": 1000 * statistics.median(trial.ttft_s for trial in warm),
    }


def _first_token(model: Session, prompt: Sequence[int]) -> Trial:
    return answer(model, prompt, _NEW_TOKENS)
