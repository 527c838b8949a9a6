"""The job that tries an engine: tiny artifacts in each family of weight types, against the
reference.

It may die: its last note says where.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from packager.engine_check import tiny
from packager.json_values import JsonObject, at, object_at
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session

if TYPE_CHECKING:
    from packager.reference.arithmetic import Floats

REFERENCE = "while computing the reference"
"""The part that is no engine's: numpy alone computes, and may die on a processor by itself."""

_DECODED = 2.5
"""How far below the best a decoded token may lie, in standard deviations of the logits: that often
what the recipe's noise explains."""


class _Quiet:
    """The report for what happens inside a part: the notes that the parent hears name the parts."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def text(self, piece: str) -> None:
        """Nothing."""


def check(
    report: Report,
    *,
    build_job: str,
    session: str,
    trials: list[JsonObject],
    threads: list[int],
    work: str,
) -> JsonObject:
    """Build and run every trial; returns `wrong`, a sentence for each that is not right, and
    `agreement`, the least of each recipe.

    A trial has the fields of packager.runtime.Trial with the fields of the recipe as `built`. Every
    part is announced by a note.
    """
    report.note("while loading the engine")
    build, make = resolve(build_job), resolve(session)
    models: dict[str, _Model] = {}
    wrong: list[str] = []
    agreement: dict[str, float] = {}
    for trial in trials:
        recipe, built = at(trial, "recipe", str), object_at(trial, "built")
        for name in ("wide", "narrow") if trial["narrow"] else ("wide",):
            known = models.get(name) or _Model(Path(work, name), name)
            models[name] = known
            artifact = Path(work, f"{recipe}-{name}")
            artifact.mkdir()
            report.note(f"while converting {recipe}, {name}")
            asked = {
                "checkpoint": str(known.source.folder),
                "workload": {"context": tiny.CONTEXT},
                "out": str(artifact),
            }
            with _own_temporary_folder():
                build(_Quiet(), recipe=built, **asked)
            for count in threads:
                part = (
                    f"while computing {recipe}, {name}, with {count} "
                    f"thread{'' if count == 1 else 's'}"
                )
                settings = {
                    "context": tiny.CONTEXT,
                    "kv": built["kv"],
                    "threads": count,
                    "gpu_layers": 0,
                }
                report.note(part.replace("computing", "opening", 1))
                model: Session = make(str(artifact), settings)
                report.note(part)
                try:
                    logits, answer = _answered(model)
                finally:
                    model.close()
                # The engine is closed before numpy computes: what dies or hangs there is no
                # engine's.
                least = at(trial, "least", float)
                alike, why = _agreement(report, logits, answer, known, least)
                # The reference is over: what dies from here on is the engine.
                report.note(part)
                agreement[recipe] = min(alike, agreement.get(recipe, 1.0))
                if why:
                    wrong.append(f"{part.removeprefix('while computing ')}: {why}")
    return {"wrong": wrong, "agreement": agreement}


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Build jobs have a process to themselves otherwise, and may leave it with a folder for
    temporary files that is gone."""
    before = os.environ.get("TMPDIR")
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before


class _Model:
    """A checkpoint, and what its unquantized weights say: computed once for each answer that an
    engine gave."""

    def __init__(self, folder: Path, name: str) -> None:
        # Late: what reads checkpoints is needed in the child alone.
        from packager.checkpoint import Checkpoint

        shape = {"wide": tiny.WIDE, "narrow": tiny.NARROW}[name]
        self.source = Checkpoint.open(tiny.write(_Quiet(), folder, shape))
        self._said: dict[tuple[int, ...], Floats] = {}

    def logits(self, report: Report, ids: Sequence[int]) -> Floats:
        """The reference behind every one of `ids`; announced by a note."""
        from packager.reference import Reference

        report.note(REFERENCE)
        key = tuple(ids)
        if key not in self._said:
            self._said[key] = Reference.compute(self.source, [list(ids)], _Quiet()).logits(0)
        return self._said[key]


def _answered(model: Session) -> tuple[Floats, list[int]]:
    """What an engine says: the logits of a prompt, and the tokens behind it."""
    import numpy as np

    ids = tiny.prompt()
    blocks = [np.array(block, dtype=np.float32) for block in model.logits(ids)]
    return np.concatenate(blocks), model.generate(
        ids, tiny.NEW_TOKENS, lambda token: None, stop=False
    )


def _agreement(
    report: Report, logits: Floats, answer: list[int], known: _Model, least: float
) -> tuple[float, str]:
    """The correlation of prompt logits with the reference's, and what is wrong, empty where nothing
    is."""
    ids, vocabulary = tiny.prompt(), known.source.shape.vocab
    logits = logits[:, :vocabulary]
    if (
        len(logits) != len(ids)
        or len(answer) != tiny.NEW_TOKENS
        or not all(0 <= token < vocabulary for token in answer)
    ):
        return (
            0.0,
            f"{len(logits)} rows of logits for {len(ids)} tokens, and {len(answer)} tokens decoded "
            f"of {tiny.NEW_TOKENS}",
        )
    wanted = known.logits(report, [*ids, *answer])
    alike = _correlation(logits, wanted[: len(ids)])
    if alike < least:
        return (
            alike,
            f"the logits of a prompt agree with the reference by {alike:.3f}, and {least:g} is the "
            "least",
        )
    behind = _below_best(wanted[len(ids) - 1 : -1], answer)
    most = _DECODED * sqrt(1 - least**2)
    if behind > most:
        return (
            alike,
            f"decoded tokens are {behind:.2f} standard deviations below the best of the reference, "
            f"and {most:.2f} is the most",
        )
    return alike, ""


def _correlation(one: Floats, other: Floats) -> float:
    """Of two tables of logits, each row around its mean: what softmax sees; -1 for what is not a
    number."""
    import numpy as np

    if not np.isfinite(one).all():
        return -1.0
    first, second = (
        table.astype(np.float64) - table.mean(axis=1, keepdims=True, dtype=np.float64)
        for table in (one, other)
    )
    sizes = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / sizes if sizes else -1.0


def _below_best(logits: Floats, answer: Sequence[int]) -> float:
    """How far the tokens of an answer lie below the best of each row, in standard deviations, as a
    mean."""
    import numpy as np

    rows = logits.astype(np.float64)
    return float(
        ((rows.max(axis=1) - rows[np.arange(len(answer)), list(answer)]) / rows.std(axis=1)).mean()
    )
