"""What a manifest says, as rows for people: predicted beside measured, budgets, files. Every number
keeps its kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packager.device.identity import NOT_YET
from packager.package.manifest import Manifest
from packager.quality.verdict import summary
from packager.records import Contents
from packager.records.contents import Retrieval
from packager.report import figures as core
from packager.report.budgets import sentence
from packager.units import human_bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """One line as text, empty where there is none: predicted, measured, and how far the prediction
    is above it (`+12 %`)."""

    label: str
    predicted: str
    measured: str
    off: str = ""


def figures(contents: Contents) -> list[Figure]:
    """The rows of a package's manifest; what is not there is left out."""
    return [Figure(row.label, *row.texts()) for row in _rows(contents) if row.main]


def _rows(contents: Contents) -> list[core.Row]:
    return core.rows(contents.telling, contents.artifact_bytes, contents.predicted)


def beyond(contents: Contents) -> str:
    """The slowest tokens and the full context in one line, for where the table has no room; empty
    where they were not measured."""
    wanted = ("decode_full_tps", "token_ms_p99")
    by_name = {row.name: row for row in _rows(contents) if row.measured is not None}
    chosen = [by_name[name] for name in reversed(wanted) if name in by_name]
    return " · ".join(f"{row.label} {row.texts()[1]}" for row in chosen)


def verdicts(contents: Contents) -> list[tuple[bool | None, str]]:
    """The budgets: passed, missed or open (None), and the sentence; one that only reports says
    so."""
    rows = []
    for verdict in contents.verdicts:
        missed = verdict.passed is False and not verdict.enforced
        note = " (on this machine; not enforced)" if missed else ""
        rows.append((verdict.passed, sentence(verdict) + note))
    return rows


MARKS: dict[bool | None, tuple[str, str, str]] = {
    True: ("✓", "passed", "$text-success"),
    False: ("✗", "missed", "bold $text-error"),
    None: ("○", "open", "$foreground-muted"),
}
"""Of a verdict: its sign, its word, its style."""


def budgets(contents: Contents) -> str:
    """All verdicts in two words."""
    outcomes = [verdict.passed for verdict in contents.verdicts]
    missed, unknown = outcomes.count(False), outcomes.count(None)
    if not outcomes:
        return "–"
    if missed:
        return f"✗ {missed} missed"
    return f"○ {unknown} open" if unknown else "✓ all"


def files(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Path, size, sha256 of every file, the largest first."""
    ordered = sorted(manifest.files, key=lambda entry: (-entry.size, entry.path))
    return [(entry.path, human_bytes(entry.size), entry.sha256) for entry in ordered]


def token_times(contents: Contents) -> list[list[float]]:
    """Milliseconds between tokens per trial of the benchmark; empty where the package keeps
    none."""
    measured = contents.telling
    return [list(row) for row in measured.token_ms if row] if measured else []


def in_full(contents: Contents, manifest: Manifest) -> list[tuple[str, str]]:
    """The figures of a package below each other, what was done to it, and its files, as text with
    its style."""
    parts = [(f"\n\n{'':<26}{'predicted':>12}{'measured':>14}\n", "bold")]
    for row in figures(contents):
        parts.append((f"{row.label:<26}", "$foreground-muted"))
        parts.append((f"{row.predicted or '–':>12}{row.measured or '–':>14}\n", ""))
    parts += [(f"{'quality':<10}", "$foreground-muted"), (f"{quality(contents)}\n", "")]
    for label, text in made_of(contents):
        parts += [(f"{label:<10}", "$foreground-muted"), (f"{text}\n", "")]
    parts.append(("\nFiles\n", "bold"))
    parts += [(f"{size:>9}  {path}\n", "") for path, size, _ in files(manifest)]
    return parts


def heading(contents: Contents) -> str:
    """What it is, for what, when."""
    source = " · random weights" if contents.source.dummy else ""
    built = (contents.created or "")[:16].replace("T", " ")
    what = (
        f"{contents.variant.repo_id or ''} · {contents.recipe.id or ''} · for "
        f"{contents.target or '?'}{source}"
    )
    return f"{what} · {built}" if built else what


def provenance(contents: Contents) -> str:
    """Where the measurement comes from, in one line."""
    measured = contents.telling
    if measured is None:
        why = contents.not_measured
        return f"{NOT_YET}: {why}" if why else "not measured"
    name = measured.machine.processor if measured.machine else "an unknown machine"
    elsewhere = "" if measured.on_device else f" · {NOT_YET}"
    noisy = " · NOISY: other programs used the processor" if measured.noisy else ""
    return f"measured {(measured.measured_at or '')[:10]} on {name}{noisy}{elsewhere}"


def column(contents: Contents) -> tuple[str, str]:
    """The head of the measured figures, which says whose they are, and a warning with what to do
    next; empty where they are the device's own and calm."""
    measured = contents.telling
    if measured is None:
        return "measured", ""
    noisy = "NOISY" if measured.noisy else "measured"
    if measured.on_device:
        warning = "The measurement was disturbed; m measures again." if measured.noisy else ""
        return noisy, warning
    name = (measured.machine.processor if measured.machine else "") or "another machine"
    target = contents.target or "the device"
    return (
        f"{noisy} on {name}",
        f"Measured on {name}, not on {target}: no check of the prediction. Copy the package to "
        f"{target} and run `qwen-pack bench` there.",
    )


def behaviour(contents: Contents) -> str:
    """How many tasks it passed, in one line; empty where it was not tried."""
    tried = contents.behaviour
    if tried is None or tried.total is None:
        return ""
    failed = ", ".join(
        f"{kind.replace('_', ' ')} {count}" for kind, count in tried.failures.items() if count
    )
    return f"{tried.passed} of {tried.total} tasks passed{f' ({failed})' if failed else ''}"


def adapters(known: Iterable[tuple[str | None, float | None]]) -> str:
    """The adapters that are merged in, in one line, of places and scales; empty where there are
    none."""
    return ", ".join(
        f"{place or 'an adapter'}{'' if scale in (None, 1) else f' times {scale:g}'}"
        for place, scale in known
    )


def made_of(contents: Contents) -> list[tuple[str, str]]:
    """What was done to the model beside its recipe, label and text: adapters merged in, how it is
    to behave, how it makes vectors or scores, how it starts, and which engines read it."""
    from packager.chat.profile import Profile
    from tui.explain import profile

    alone = contents.adapter
    rows = [("base", "" if alone is None else f"an adapter, to be added to {alone.base.name}")]
    rows += [
        (
            "adapters",
            adapters((adapter.location, adapter.scale) for adapter in contents.source.adapters),
        )
    ]
    fixed = contents.chat.profile if contents.chat else None
    if fixed is not None:
        rows.append(("behaves", profile(Profile.from_dict(fixed.to_json()))))
    if contents.retrieval is not None:
        rows.append(("gives", retrieval(contents.retrieval)))
    if contents.warm is not None and contents.warm.ttft_warm_ms is not None:
        first = f"first token after {contents.warm.ttft_warm_ms:.0f} ms"
        rows.append(("starts", f"warm, {first} behind {contents.warm.prefix_tokens:,} kept tokens"))
    oldest = " and ".join(f"{row.engine} {row.version}" for row in contents.runtime.minimum)
    if oldest:
        rows.append(("needs", f"{oldest} or newer"))
    return [(label, text) for label, text in rows if text]


def retrieval(known: Retrieval) -> str:
    """How a package makes vectors or scores, in one line."""
    if known.task == "rerank":
        return "the probability that a document answers a query"
    kept = known.dimension or known.hidden
    of = f" of {known.hidden:,}" if known.dimension and known.hidden else ""
    pooled = ", the last token's" if known.pooling == "last" else ""
    length = ", brought to length 1" if known.normalized else ""
    return f"vectors of {kept:,}{of} numbers{pooled}{length}" if kept else "vectors"


def measurements_added(contents: Contents) -> int:
    """How many measurements were added to a package after its build."""
    return len(contents.measurements)


def replaced(contents: Contents) -> str:
    """What a build would replace: the package that stands in the folder, and what would go with
    it."""
    built = (contents.created or "")[:16].replace("T", " ")
    what = [f"built {built}"] if built else []
    what += [f"context {contents.context:,}"] if contents.context else []
    added = measurements_added(contents)
    lost = f", with {added} measurement{'' if added == 1 else 's'} added later" if added else ""
    return f"Replaces the package that is there ({', '.join(what)}){lost}."


def quality(contents: Contents) -> str:
    """The quality figures of the package in one line, or why there are none."""
    return summary(contents.quality) if contents.quality else "not measured"
