"""What drafted tokens cost and gain with llama.cpp: the cost model and the break-even acceptance on
true shapes with random weights, and what is accepted on the small trained model. The last line is
one JSON object.

    python benchmarks/speculation.py [--pair Qwen3-0.6B ...] [--draft Qwen3-0.6B] [--scratch FOLDER]

For every model: milliseconds of a token and of a step that checks 1 to 8 drafted ones, and from
which share of them on that pays, with prompt lookup and with the draft model, whose token costs
what it costs to decode. On the trained model: prompt lookup, and its own Q4_0 as a draft of its
Q8_0; every answer is compared with plain decoding, token by token.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.artifacts import ROOT, built, finish, scratch_folder, versions
from packager.device.this_machine import describe_machine
from packager.measure.speculation import Costs
from packager.quality.text import shipped
from targets.llama_cpp import LlamaCpp

RECIPE, TRAINED = "gguf:Q4_K_M", ("gguf:Q8_0", "gguf:Q4_0")
CONTEXT = 512


def settings(context: int = CONTEXT) -> dict[str, Any]:
    return {"context": context, "kv": "f16", "threads": None, "gpu_layers": 0}


def measured(artifact: Path, log: Path, texts: dict[str, str] | None) -> dict[str, Any]:
    value: dict[str, Any] = finish(
        "packager.measure.speculation:measure",
        log,
        session=LlamaCpp.session,
        artifact=str(artifact),
        settings=settings(),
        texts=texts,
    ).value
    return value


def with_draft(facts: dict[str, Any], draft_ms: float) -> list[dict[str, Any]]:
    """The steps of a cost model with another cost of drafting."""
    check = {step["drafted"]: step["check_ms"] for step in facts["steps"]}
    costs = Costs(facts["decode_ms"], draft_ms, check)
    return [{"drafted": width, "break_even": costs.break_even(width)} for width in check]


def shown(steps: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{step['drafted']}: "
        + ("never" if step["break_even"] is None else f"{step['break_even']:.0%}")
        for step in steps
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pair", action="append", metavar="MODEL")
    parser.add_argument("--draft", default="Qwen3-0.6B")
    parser.add_argument("--scratch", type=Path)
    asked = parser.parse_args()
    models = list(dict.fromkeys([asked.draft, *(asked.pair or ["Qwen3-1.7B"])]))
    document: dict[str, Any] = {"shapes": {}, "draft": asked.draft}
    with scratch_folder(asked.scratch) as scratch:
        log = scratch / "speculation.log"
        for model in models:
            places, failed = built(model, [RECIPE], scratch)
            if failed:
                print(f"{model}: {failed[RECIPE]}", file=sys.stderr)
                continue
            facts = measured(places[RECIPE], log, None)
            print(f"{model}: {facts['decode_ms']:.1f} ms a token", flush=True)
            print(f"  prompt lookup pays from {shown(facts['steps'])}", flush=True)
            if model != asked.draft and asked.draft in document["shapes"]:
                draft_ms = document["shapes"][asked.draft]["decode_ms"]
                facts["with_draft"] = with_draft(facts, draft_ms)
                print(f"  {asked.draft} as draft pays from {shown(facts['with_draft'])}")
            document["shapes"][model] = facts
        texts = {part.name: part.text[:2000] for part in shipped().parts}
        trained = ROOT / "tests" / "models" / "tiny-qwen3"
        places, _ = built("tiny-qwen3", TRAINED, scratch, trained, CONTEXT)
        lookup = measured(places[TRAINED[0]], log, texts)
        drafted = finish(
            "benchmarks.jobs:drafted",
            log,
            session=LlamaCpp.session,
            artifact=str(places[TRAINED[0]]),
            draft=str(places[TRAINED[1]]),
            settings=settings(),
            texts=texts,
        ).value
        document["trained"] = {"lookup": lookup, "draft": drafted}
        for kind, row in (("prompt lookup", lookup), ("its own Q4_0", drafted)):
            same = "the same answers" if row["same"] else "OTHER ANSWERS"
            print(f"trained, {kind}: {row['acceptance']:.0%} accepted, {same}", flush=True)
    document |= {"machine": describe_machine(), "versions": versions([RECIPE])}
    print(json.dumps(document))
    return 0 if document["trained"]["lookup"]["same"] and drafted["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
