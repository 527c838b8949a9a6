"""Two candidates in standing comparison: in every run the same pairs of cells, figure by figure,
beyond the noise; and since when one is ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from packager.json_values import JsonObject
from packager.records.figures import BY_NAME
from packager.sweep.asked import Compare
from packager.sweep.cell import Cell
from packager.sweep.exclusion import Exclusion
from packager.sweep.folder import Run
from packager.sweep.history import MARGINS, difference
from packager.sweep.row import Row

Better = Literal["one", "other", "equal"]
Verdict = Literal["one", "other", "equal", "mixed", "open"]
_AXES = ("variant", "lora", "recipe", "kv", "context", "target", "profile")


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell of each candidate, alike in all that the comparison does not name. `figures` has of
    each which one is better; `since` is the run from which on the verdict has been this."""

    name: str
    one: Row
    other: Row
    figures: dict[str, Better]
    verdict: Verdict
    since: int
    runs: tuple[tuple[int, Verdict], ...]

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "name": self.name,
            "one": self.one.id,
            "other": self.other.id,
            "figures": {
                name: {
                    "one": self.one.figures[name],
                    "other": self.other.figures[name],
                    "better": better,
                }
                for name, better in self.figures.items()
            },
            "verdict": self.verdict,
            "since_run": self.since,
            "runs": [{"run": number, "verdict": verdict} for number, verdict in self.runs],
        }

    def sentence(self) -> str:
        """The comparison in a sentence."""
        names = {"one": self.one.of.label, "other": self.other.of.label}
        if self.verdict == "open":
            return f"{self.name}: {names['one']} and {names['other']} cannot be compared yet."
        if self.verdict == "equal":
            return f"{self.name}: {names['one']} and {names['other']} do not differ."
        ahead = {
            side: [BY_NAME[name].label for name, better in self.figures.items() if better == side]
            for side in ("one", "other")
        }
        parts = [
            f"{names[side]} is better in {', '.join(labels)}"
            for side, labels in ahead.items()
            if labels
        ]
        return f"{self.name}: {'; '.join(parts)} (since run {self.since})."


def standing(runs: Sequence[Run], compares: Sequence[Compare]) -> list[Pair]:
    """Every pair of the last run."""
    return [pair for asked in compares for pair in _pairs(runs, asked)]


def _pairs(runs: Sequence[Run], asked: Compare) -> Iterator[Pair]:
    one, other = Exclusion(**asked.one), Exclusion(**asked.other)
    named = {key for side in (one, other) for key, value in asdict(side).items() if value}
    named |= {"lora"} if "adapter" in named else set()
    free = [name for name in _AXES if name not in named]
    cells = {name: row.of for name, row in runs[-1].rows.items()}
    left = {_place(cell, free): name for name, cell in cells.items() if one.matches(cell)}
    for name, cell in cells.items():
        place = _place(cell, free)
        if other.matches(cell) and left.get(place, name) != name:
            yield _pair(runs, asked.name, left[place], name)


def _place(cell: Cell, free: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(cell, name) for name in free)


def _pair(runs: Sequence[Run], name: str, one: str, other: str) -> Pair:
    history = tuple(
        (run.number, _verdict(_figures(run.rows[one], run.rows[other])))
        for run in runs
        if one in run.rows and other in run.rows
    )
    now = history[-1][1]
    since = history[-1][0]
    for number, verdict in reversed(history):
        if verdict != now:
            break
        since = number
    rows = runs[-1].rows
    figures = _figures(rows[one], rows[other])
    return Pair(name, rows[one], rows[other], figures, now, since, history)


def _figures(one: Row, other: Row) -> dict[str, Better]:
    """Which of the two is better in each figure that both have and that can be compared."""
    better: dict[str, Better] = {}
    for name in MARGINS:
        if (worse := difference(name, one, other)) is not None:
            better[name] = {1: "one", 0: "equal", -1: "other"}[worse]  # type: ignore[assignment]
    return better


def _verdict(figures: dict[str, Better]) -> Verdict:
    """Ahead is who is better in something and worse in nothing."""
    if not figures:
        return "open"
    sides = set(figures.values()) - {"equal"}
    if not sides:
        return "equal"
    return "mixed" if len(sides) == 2 else sides.pop()
