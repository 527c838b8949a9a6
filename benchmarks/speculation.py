"""What drafted tokens cost and gain with llama.cpp: the cost model and the break-even acceptance on
true shapes with random weights, and what is accepted on the small trained model. The last line is
one JSON object.

    python benchmarks/speculation.py --scratch FOLDER --build [--pair ...] [--heads ...]
    python benchmarks/speculation.py [--scratch FOLDER] [--pair MODEL ...] [--draft MODEL]
                                     [--heads MODEL ...] [--layers N] [--tiny]

`--build` makes the models of true shapes and stops, so that an idle machine is left to the
measurement.

True shapes: every `--pair` with the draft beside it, both loaded, in the layers that it has or the
first `--layers` of them where it would not fit into memory; every `--heads` with its own heads for
multi-token prediction. For each: milliseconds of a token, of a drafted one and of a step that
checks 1 to 8 of them, and from which share on that pays; and answers with drafts that are right,
half right and wrong compared token by token with plain decoding, for hybrids with their state put
back.

Trained: the small model of the tests with prompt lookup, with its own Q4_0 and with the draft that
was trained for it, by kind of text; and a small hybrid with heads that were fitted. `--tiny` leaves
the true shapes out. Exit code 1 where an answer is another one.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import ROOT, built, finish, scratch_folder, shape_of, versions
from packager import catalog
from packager.device.this_machine import describe_machine
from packager.measure.speculation import way
from packager.quality.text import continued
from packager.shape import Hybrid, Shape, heads
from targets.llama_cpp import LlamaCpp

RECIPE, TRAINED, DRAFT = "gguf:Q4_K_M", ("gguf:Q8_0", "gguf:Q4_0"), "gguf:Q8_0"
CONTEXT = 512
SMALL_HYBRID = Shape(
    "qwen3_5_text",
    *(256, 2, 4, 2, 64, 512, 1024),
    *(False, False, True, 2048),
    hybrid=Hybrid(2, 2, 4, 64, 64, 4),
)
"""That of the tests."""


def settings() -> dict[str, Any]:
    return {"context": CONTEXT, "kv": "f16", "threads": None, "gpu_layers": 0}


def measured(
    artifact: Path, log: Path, asked: dict[str, Any], texts: dict[str, str] | None
) -> dict[str, Any]:
    value: dict[str, Any] = finish(
        "packager.measure.speculation:measure",
        log,
        session=LlamaCpp.session,
        artifact=str(artifact),
        settings=settings(),
        asked=asked,
        texts=texts,
    ).value
    return value


def same(artifact: Path, log: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Whether answers are the same with whatever is drafted, and where they part at ties."""
    value: dict[str, Any] = finish(
        "benchmarks.jobs:same_answers",
        log,
        session=LlamaCpp.session,
        artifact=str(artifact),
        settings=settings(),
        asked=asked,
    ).value
    return value


def shape_built(name: str, shape: Shape, scratch: Path) -> Path:
    """A GGUF of random weights in that shape, with heads where it has some; kept in the scratch
    folder."""
    place = scratch / name / "artifact"
    if not place.is_dir():
        folder, half = scratch / name / "checkpoint", scratch / name / ".artifact"
        log = scratch / f"{name}.log"
        repo_id = catalog.find(name.partition("+")[0]).repo_id
        fetch = "packager.sources.dummy:fetch"
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            finish(fetch, log, repo_id=repo_id, shape=asdict(shape), out=str(folder))
            print(f"{name}: checkpoint written", flush=True)
        recipe = asdict(LlamaCpp().recipe(RECIPE.partition(":")[2]))
        order = {
            "checkpoint": str(folder),
            "recipe": {**recipe, "inputs": {"heads": bool(shape.draft_layers)}},
            "workload": {"context": CONTEXT},
            "out": str(half),
        }
        finish(LlamaCpp.build_job, log, **order)
        half.rename(place)
        print(f"{name}: built", flush=True)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return place


def shown(facts: dict[str, Any]) -> str:
    edges = ", ".join(
        f"{step['drafted']}: "
        + ("never" if step["break_even"] is None else f"{step['break_even']:.0%}")
        for step in facts["steps"]
    )
    costs = f"{facts['decode_ms']:.1f} ms a token, {facts['draft_ms']:.1f} ms drafted"
    return f"{costs}; pays from {edges}"


@dataclass(frozen=True, slots=True)
class Drafted:
    """A model, and the ways in which its tokens are drafted: `how` and the artifact of a draft."""

    label: str
    model: Path
    ways: tuple[tuple[str, str | None], ...]
    layers: int
    of_layers: int


def shapes_built(asked: argparse.Namespace, scratch: Path) -> list[Drafted]:
    """The pairs, and the models with heads."""
    draft = str(shape_built(asked.draft, shape_of(asked.draft), scratch))
    rows = []
    for name in asked.pair:
        shape = shape_of(name)
        layers = min(shape.layers, asked.layers or shape.layers)
        label = name if layers == shape.layers else f"{name}+{layers}-layers"
        model = shape_built(label, replace(shape, layers=layers), scratch)
        ways = (("lookup", None), ("draft", draft))
        rows.append(Drafted(label, model, ways, layers, shape.layers))
    for name in asked.heads:
        shape = replace(shape_of(name), draft_layers=heads.LAYERS)
        model = shape_built(f"{name}+heads", shape, scratch)
        ways = (("lookup", None), ("mtp", None))
        rows.append(Drafted(name, model, ways, shape.layers, shape.layers))
    return rows


def true_shapes(built_ones: list[Drafted], log: Path) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for one in built_ones:
        for how, artifact in one.ways:
            facts = measured(one.model, log, way(how, artifact), None)
            facts = {**facts, **same(one.model, log, way(how, artifact))}
            layers = {"layers": one.layers, "of_layers": one.of_layers}
            rows[f"{one.label} {how}"] = {**facts, **layers}
            print(f"{one.label}, {how}: {shown(facts)}", flush=True)
            if not facts["same"]:
                print(f"{one.label}, {how}: OTHER ANSWERS", flush=True)
    return rows


def cost_table(rows: dict[str, Any]) -> None:
    """The costs as Markdown."""
    if not rows:
        return
    widths = [step["drafted"] for step in next(iter(rows.values()))["steps"]]
    print("\n| shape, drafted by | token | drafted token | step that checks", end=" ")
    print(f"{', '.join(map(str, widths))} | pays from | answers |")
    print("| --- | ---: | ---: | --- | --- | --- |")
    for name, facts in rows.items():
        checks = ", ".join(f"{step['check_ms']:.0f}" for step in facts["steps"])
        edges = [step["break_even"] for step in facts["steps"]]
        pays = ", ".join("never" if edge is None else f"{edge:.0%}" for edge in edges)
        same = "the same" if facts["same"] else "OTHER"
        same += f", {len(facts['parted'])} part at ties" if facts["parted"] else ""
        costs = f"{facts['decode_ms']:.1f} ms | {facts['draft_ms']:.2f} ms"
        print(f"| {name} | {costs} | {checks} ms | {pays} | {same} |")


def kinds_table(rows: dict[str, Any]) -> None:
    """What is accepted by kind of text, as Markdown."""
    known = {name: row["kinds"] for name, row in rows.items() if "kinds" in row}
    names = [kind["name"] for kind in next(iter(known.values()))]
    print(f"\n| accepted of drafted | {' | '.join(names)} |")
    print(f"| --- | {' | '.join('---:' for _ in names)} |")
    for name, kinds in known.items():
        cells = " | ".join(f"{kind['accepted']} of {kind['drafted']}" for kind in kinds)
        print(f"| {name} | {cells} |")


def trained(scratch: Path) -> dict[str, Any]:
    texts = {name: text[:2000] for name, text in continued().items()}
    log, models = scratch / "speculation.log", ROOT / "tests" / "models"
    places, _ = built("tiny-qwen3", TRAINED, scratch, models / "tiny-qwen3", CONTEXT)
    small, _ = built("tiny-qwen3-draft", [DRAFT], scratch, models / "tiny-qwen3-draft", CONTEXT)
    main = places[TRAINED[0]]
    rows = {
        "prompt lookup": measured(main, log, way("lookup"), texts),
        "its own Q4_0": measured(main, log, way("draft", str(places[TRAINED[1]])), texts),
        "a trained draft": measured(main, log, way("draft", str(small[DRAFT])), texts),
    }
    folder = scratch / "small-hybrid"
    hybrid = finish(
        "benchmarks.jobs:fitted_heads", log, folder=str(folder), shape=asdict(SMALL_HYBRID)
    ).value
    rows["fitted heads of a small hybrid"] = hybrid
    for name, row in rows.items():
        answers = "the same answers" if row["same"] else "OTHER ANSWERS"
        speed = f", {row['speed_up']:.2f} times as fast" if row.get("speed_up") else ""
        print(f"trained, {name}: {row['acceptance']:.0%} accepted{speed}, {answers}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", nargs="*", default=["Qwen3-8B"], metavar="MODEL")
    parser.add_argument("--draft", default="Qwen3-0.6B")
    both = ["Qwen3.5-0.8B", "Qwen3.5-2B"]
    parser.add_argument("--heads", nargs="*", default=both, metavar="MODEL")
    parser.add_argument("--layers", type=int, default=18, help="of a pair at most; 0: all")
    parser.add_argument("--tiny", action="store_true", help="the small models of the tests alone")
    parser.add_argument("--build", action="store_true", help="make the true shapes and stop")
    parser.add_argument("--scratch", type=lambda text: Path(text).resolve())
    asked = parser.parse_args()
    with scratch_folder(asked.scratch) as scratch:
        shapes = [] if asked.tiny else shapes_built(asked, scratch)
        if asked.build:
            return 0
        rows = true_shapes(shapes, scratch / "speculation.log")
        seen = trained(scratch)
        document = {"shapes": rows, "draft": asked.draft, "trained": seen}
    cost_table(rows)
    kinds_table(seen)
    document |= {"machine": describe_machine(), "versions": versions([RECIPE])}
    print(json.dumps(document))
    every = [*document["shapes"].values(), *document["trained"].values()]
    return 0 if all(row["same"] for row in every) else 1


if __name__ == "__main__":
    sys.exit(main())
