"""One row of the result: what became of a cell, with the figures of its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from packager.errors import ExitCode
from packager.escapes import line
from packager.records import Contents, Machine
from packager.records.base import Count, Number, Record, Tokens, without_nulls
from packager.report.budgets import sentence
from packager.report.figures import value_of
from packager.sweep.cell import Cell

Status = Literal["done", "failed", "refused", "dropped"]
FIGURES = (
    "artifact_bytes",
    "peak_memory_bytes",
    "gpu_memory_bytes",
    "ttft_ms",
    "prefill_tps",
    "decode_tps",
    "token_ms_p95",
    "load_s",
)
"""Figures of a measurement that a row keeps, see packager.records.figures; `kl_mean` and
`tasks_passed` (percent) come from quality and behaviour."""
_LONGEST = 2000


class Row(Record, frozen=True, kw_only=True):
    """`status`: done; failed with `reason` and `exit_code`; refused, so that it was never started;
    dropped by pruning, at the rung `rung`.

    `seconds` are those of stages that ran, `cached` names those that did not need to. `package` and
    `manifest` are paths below the sweep's folder; a package that was dropped has its manifest only.
    """

    id: str
    # Any: Cell.from_json reads it.
    cell: dict[str, Any]
    status: Status
    reason: str | None = None
    exit_code: Count = 0
    rung: str | None = None
    finished_at: str | None = None
    runtime: str | None = None
    engine_version: str | None = None
    builder: str | None = None
    revision: str | None = None
    settings_sha256: str | None = None
    parameters: Count | None = None
    context: Tokens | None = None
    prompt_tokens: Tokens | None = None
    image_tokens: Tokens | None = None
    audio_seconds: Count | None = None
    """Those of the picture and the sound that the peak of memory holds."""
    figures: dict[str, Number] = msgspec.field(default_factory=dict)
    noisy: bool = False
    machine: Machine | None = None
    on_device: bool | None = None
    not_measured: str | None = None
    measured_at: str | None = None
    gate: bool | None = None
    missed: tuple[str, ...] = ()
    dummy: bool = False
    content_sha256: str | None = None
    package: str | None = None
    manifest: str | None = None
    seconds: dict[str, Number] = msgspec.field(default_factory=dict)
    cached: tuple[str, ...] = ()

    @property
    def of(self) -> Cell:
        """Its coordinates. Raises ValueError where they are none."""
        return Cell.from_json(self.cell)


@dataclass
class Stages:
    """What the stages of one build took, gathered while it runs."""

    seconds: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)

    def add(self, stage: str, seconds: float, cached: bool) -> None:
        """One finished stage."""
        if cached:
            self.cached.append(stage)
        else:
            self.seconds[stage] = round(seconds, 3)


def done(
    cell: Cell,
    data: Mapping[str, Any],
    contents: Contents,
    stages: Stages,
    paths: tuple[str | None, str | None],
    parameters: int | None = None,
) -> Row:
    """The row of a finished package, from its manifest; `paths` are those of package and
    manifest."""
    from packager.digests import key_of

    measured = contents.telling
    figures = {
        name: value
        for name in FIGURES
        if (value := value_of(name, measured, contents.artifact_bytes)) is not None
    }
    if contents.quality and contents.quality.kl_mean is not None:
        figures["kl_mean"] = contents.quality.kl_mean
    if contents.behaviour and contents.behaviour.share is not None:
        figures["tasks_passed"] = 100 * contents.behaviour.share
    return Row(
        id=cell.id,
        cell=without_nulls(cell.to_json()),
        status="done",
        finished_at=now(),
        runtime=contents.runtime.name,
        engine_version=contents.runtime.version,
        builder=_text(contents.tools.get("qwen-pack")),
        revision=contents.variant.revision,
        settings_sha256=key_of(data.get("recipe")),
        parameters=parameters,
        context=contents.context,
        prompt_tokens=measured.prompt_tokens if measured else None,
        image_tokens=measured.image_tokens if measured else None,
        audio_seconds=measured.audio_seconds if measured else None,
        figures=figures,
        noisy=bool(measured and measured.noisy),
        machine=measured.machine if measured else None,
        on_device=measured.on_device if measured else None,
        not_measured=contents.not_measured,
        measured_at=measured.measured_at if measured else None,
        gate=contents.quality.passed if contents.quality else None,
        missed=tuple(sentence(verdict) for verdict in contents.verdicts if verdict.failed),
        dummy=contents.source.dummy,
        content_sha256=contents.content_sha256,
        package=paths[0],
        manifest=paths[1],
        seconds=stages.seconds,
        cached=tuple(stages.cached),
    )


def not_done(
    cell: Cell,
    status: Status,
    reason: str,
    exit_code: int = 0,
    *,
    rung: str | None = None,
    stages: Stages | None = None,
) -> Row:
    """The row of a cell without a package; `reason` is one sentence."""
    gathered = stages or Stages()
    return Row(
        id=cell.id,
        cell=without_nulls(cell.to_json()),
        status=status,
        reason=one_line(reason),
        exit_code=exit_code,
        rung=rung,
        finished_at=now(),
        seconds=gathered.seconds,
        cached=tuple(gathered.cached),
    )


def one_line(text: str) -> str:
    """A text as one line of printable characters."""
    return line(" ".join(text.split())[:_LONGEST])


def failures(rows: Sequence[Row]) -> dict[str, int]:
    """How many failed, by the name of their exit code."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.status == "failed":
            code = row.exit_code
            known = code in set(ExitCode)
            name = ExitCode(code).name.lower() if known else str(code)
            counts[name] = counts.get(name, 0) + 1
    return counts


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def below(root: Path, path: Path) -> str:
    """A path as rows keep it: below the sweep's folder, with forward slashes."""
    return path.relative_to(root).as_posix()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None
