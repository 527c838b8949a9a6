"""What `fit` chooses for eleven use cases on nine devices with each preference, beside the reviewed
answers.

    python benchmarks/choices.py            compare with tests/golden/choices.tsv; the last line is
                                            one JSON object
    python benchmarks/choices.py --write    write the table again, for review: the reasons of
                                            unchanged rows are kept

A row of the table is use case, device, preference, the chosen variant and recipe, and why that is
what a good engineer would take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packager import catalog
from packager.need.usecases import use_case, use_case_names
from packager.need.workload import Preference, merge
from packager.select import Candidate, candidates
from packager.select.preference import ordered
from packager.units import human_bytes
from targets import registry

TABLE = Path(__file__).resolve().parent.parent / "tests" / "golden" / "choices.tsv"
DEVICES = (
    *("laptop-cpu", "mini-pc-8gb", "raspberry-pi-5-8gb", "android-8gb", "iphone-8gb", "macbook-m4"),
    *("core-ultra-7-155h-npu", "rtx-3060-12gb", "rtx-4090"),
)
PREFERENCES: tuple[Preference, ...] = ("smallest", "quality", "speed", "balanced")
"""Those that were reviewed. The cheapest answer is the fastest one that does not think, or near it:
tests/test_several.py."""
TEXT = tuple(name for name in use_case_names() if use_case(name).task == "generate")
NOTHING = "nothing fits"


class Choice(NamedTuple):
    """One row of the table."""

    use_case: str
    device: str
    prefer: str
    variant: str
    recipe: str
    reason: str

    @property
    def question(self) -> tuple[str, str, str]:
        """What was asked."""
        return self[:3]

    @property
    def answer(self) -> tuple[str, str]:
        """What was chosen."""
        return self[3:5]


def read(path: Path = TABLE) -> list[Choice]:
    """The reviewed answers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Choice(*line.split("\t")) for line in lines[1:]]


def answers(use_cases: Iterable[str], devices: Iterable[str]) -> Iterator[Choice]:
    """What is chosen now, each with the figures behind it as its reason."""
    runtimes, variants = registry.runtimes(), catalog.load()
    for name in use_cases:
        for device in devices:
            target = registry.target(device)
            workload = merge({"use_case": name}, target.workload)
            # The preference orders what passes and judges nothing: one look serves all.
            found = candidates(
                target, replace(workload, prefer="quality"), variants, runtimes, named=False
            )
            passing = [replace(one, verdict="fits") for one in found if one.passes]
            for prefer in PREFERENCES:
                order = ordered(passing, prefer)
                if order:
                    best = order[0]
                    yield Choice(
                        name,
                        device,
                        prefer,
                        best.variant.name,
                        best.recipe.id,
                        _figures(best, prefer, order),
                    )
                else:
                    yield Choice(name, device, prefer, NOTHING, "", _nearest(found))


def _figures(best: Candidate, prefer: str, order: Sequence[Candidate]) -> str:
    count = len({one.variant.repo_id for one in order if one.sure >= best.sure})
    said = [
        {
            "smallest": f"least memory of {count} variants that pass in the recipe that the device "
            "prefers",
            "quality": f"best scores of {count} variants less what the quantization takes, with "
            "room left",
            "speed": f"fastest of {count} variants at 4 bits or more",
            "balanced": f"knee of quality, rate and memory over {count} variants",
        }[prefer],
        f"{human_bytes(best.footprint.peak)}, {best.forecast.decode_tps:.3g} tok/s",
    ]
    said += [f"quality {best.quality:g}"] if best.quality is not None else []
    said += [f"may miss {reason.rule}, and nothing meets it for sure" for reason in best.may_miss]
    return "; ".join(said)


def _nearest(found: Sequence[Candidate]) -> str:
    return f"the nearest is {found[0].label}: {found[0].reasons[0]}" if found else "no candidate"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    now = list(answers(TEXT, DEVICES))
    before = {row.question: row for row in read()} if TABLE.exists() else {}
    changed = [
        row
        for row in now
        if row.question not in before or before[row.question].answer != row.answer
    ]
    for row in changed:
        was = before[row.question].answer if row.question in before else ("new",)
        print(f"{' '.join(row.question)}: {' '.join(row.answer)}, was {' '.join(was)}")
    if options.write:
        kept = [row if row in changed else before[row.question] for row in now]
        lines = [
            "\t".join(("use case", "device", "prefer", "variant", "recipe", "reason")),
            *("\t".join(row) for row in kept),
        ]
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        json.dumps(
            {
                "benchmark": "choices",
                "rows": len(now),
                "changed": len(changed),
                "passed": not changed,
            }
        )
    )
    return 0 if options.write or not changed else 1


if __name__ == "__main__":
    sys.exit(main())
