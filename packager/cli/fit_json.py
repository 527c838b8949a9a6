"""What `qwen-pack fit --json` prints for one target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.json_values import JsonDict, JsonObject

if TYPE_CHECKING:
    from packager.cli.fit_answer import Answer


def payload_of(answer: Answer) -> JsonObject:
    """The fields of the contract for one target."""
    payload: JsonDict = {
        "target": answer.target.name,
        "workload": answer.workload.as_dict(),
        "chosen": answer.chosen.as_dict() if answer.chosen else None,
        "candidates": [candidate.as_dict() for candidate in answer.judged],
    }
    if answer.chosen is not None and (cost := answer.cost(answer.chosen)) is not None:
        payload["chosen_cost_per_million"] = dict(zip(("cost", "low", "high"), cost, strict=True))
    if answer.problem:
        payload["problem"] = answer.problem
    elif answer.chosen is None:
        payload["nearest_misses"] = [miss.as_dict() for miss in answer.misses]
        payload["elsewhere"] = answer.elsewhere.as_dict() if answer.elsewhere else None
    if answer.steps is not None:
        payload["steps"] = [step.as_dict() for step in answer.steps]
    if answer.drafts:
        payload["drafts"] = [draft.as_dict() for draft in answer.drafts]
    if answer.instead is not None:
        payload["instead"] = answer.instead.as_dict()
    return payload
