"""What a manifest says, as rows for people: predicted beside measured, budgets, files. Every number
keeps its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from packager.device.identity import NOT_YET
from packager.package.manifest import Manifest
from packager.quality.verdict import summary
from packager.report import figures as core
from packager.report.budgets import sentence
from packager.report.evidence import on_device, telling
from packager.units import human_bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """One line as text, empty where there is none: predicted, measured, and how far the prediction
    lies above it (`+12 %`)."""

    label: str
    predicted: str
    measured: str
    off: str = ""


def figures(data: dict[str, Any]) -> list[Figure]:
    """The rows of a package's manifest; what is not there is left out."""
    return [
        Figure(row.label, *row.texts())
        for row in core.rows({**data, "measured": telling(data)})
        if row.main
    ]


def beyond(data: dict[str, Any]) -> str:
    """The slowest tokens and the full context in one line, for where the table has no room; empty
    where they were not measured."""
    table = {
        row.label: row
        for row in core.rows({**data, "measured": telling(data)})
        if not row.main and row.measured is not None
    }
    chosen = [
        row
        for label, row in table.items()
        if label == "token, P99" or label.startswith("decode at") or label == "decode, full context"
    ]
    return " · ".join(f"{row.label} {row.texts()[1]}" for row in reversed(chosen))


def verdicts(data: dict[str, Any]) -> list[tuple[bool | None, str]]:
    """The budgets: passed, missed or open (None), and the sentence; one that only reports says
    so."""
    rows = []
    for row in data.get("verdicts") or []:
        note = (
            " (on this machine; not enforced)"
            if row["passed"] is False and not row["enforced"]
            else ""
        )
        rows.append((row["passed"], sentence(row) + note))
    return rows


MARKS: dict[bool | None, tuple[str, str, str]] = {
    True: ("✓", "passed", "$text-success"),
    False: ("✗", "missed", "bold $text-error"),
    None: ("○", "open", "$foreground-muted"),
}
"""Of a verdict: its sign, its word, its style."""


def budgets(data: dict[str, Any]) -> str:
    """All verdicts in two words."""
    found = [passed for passed, _ in verdicts(data)]
    missed, unknown = found.count(False), found.count(None)
    return (
        "–"
        if not found
        else f"✗ {missed} missed"
        if missed
        else f"○ {unknown} open"
        if unknown
        else "✓ all"
    )


def files(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Path, size, sha256 of every file, the largest first."""
    ordered = sorted(manifest.files, key=lambda entry: (-entry.size, entry.path))
    return [(entry.path, human_bytes(entry.size), entry.sha256) for entry in ordered]


def token_times(data: dict[str, Any]) -> list[list[float]]:
    """Milliseconds between tokens per trial of the smoke benchmark; empty where the package keeps
    none."""
    rows = (telling(data) or {}).get("token_ms")
    if not isinstance(rows, list):
        return []
    return [
        row
        for row in rows
        if isinstance(row, list) and row and all(isinstance(value, int | float) for value in row)
    ]


def heading(data: dict[str, Any]) -> str:
    """What it is, for what, when."""
    source = " · random weights" if (data.get("source") or {}).get("kind") == "dummy" else ""
    built = str(data.get("created", ""))[:16].replace("T", " ")
    what = (
        f"{data['variant'].get('repo_id', '')} · {data['recipe'].get('id', '')} · for "
        f"{data.get('target', '?')}{source}"
    )
    return f"{what} · {built}" if built else what


def provenance(data: dict[str, Any]) -> str:
    """Where the measurement comes from, in one line."""
    measured = telling(data)
    if measured is None:
        return f"{NOT_YET}: {data['not_measured']}" if data.get("not_measured") else "not measured"
    machine = measured.get("machine")
    name = machine.get("processor") if isinstance(machine, dict) else machine
    elsewhere = "" if on_device(measured) else f" · {NOT_YET}"
    noisy = " · NOISY: other programs used the processor" if measured.get("noisy") else ""
    return f"measured {str(measured.get('measured_at', ''))[:10]} on {name}{noisy}{elsewhere}"


def column(data: dict[str, Any]) -> tuple[str, str]:
    """The head of the measured figures, which says whose they are, and a warning with what to do
    next; empty where they are the device's own and calm."""
    measured = telling(data)
    if measured is None:
        return "measured", ""
    noisy = "NOISY" if measured.get("noisy") else "measured"
    if on_device(measured):
        return (
            noisy,
            "" if noisy == "measured" else "The measurement was disturbed; m measures again.",
        )
    machine = measured.get("machine")
    name = machine.get("processor") if isinstance(machine, dict) else machine
    target = data.get("target") or "the device"
    way = f"Copy the package to {target} and run `qwen-pack bench` there."
    return (
        f"{noisy} on {name or 'another machine'}",
        f"Measured on {name or 'another machine'}, not on {target}: no check of the prediction. "
        f"{way}",
    )


def behaviour(data: dict[str, Any]) -> str:
    """How many tasks it passed, in one line; empty where it was not tried."""
    found = data.get("behaviour")
    if not isinstance(found, dict) or found.get("total") is None:
        return ""
    failed = ", ".join(
        f"{kind.replace('_', ' ')} {count}"
        for kind, count in (found.get("failures") or {}).items()
        if count
    )
    return (
        f"{found.get('passed')} of {found['total']} tasks passed{f' ({failed})' if failed else ''}"
    )


def measurements_added(data: dict[str, Any]) -> int:
    """How many measurements were added to a package after its build."""
    added = data.get("measurements")
    return len(added) if isinstance(added, list) else 0


def replaced(data: dict[str, Any]) -> str:
    """What a build would replace: the package that stands in the folder, and what would go with
    it."""
    built = str(data.get("created", ""))[:16].replace("T", " ")
    context = (data.get("workload") or {}).get("context")
    what = ", ".join(
        [
            *([f"built {built}"] if built else []),
            *([f"context {context:,}"] if isinstance(context, int) else []),
        ]
    )
    added = measurements_added(data)
    lost = f", with {added} measurement{'' if added == 1 else 's'} added later" if added else ""
    return f"Replaces the package that is there ({what}){lost}."


def quality(data: dict[str, Any]) -> str:
    """The quality figures of the package in one line, or why there are none."""
    found = data.get("quality")
    return summary(found) if isinstance(found, dict) and found else "not measured"
