"""A runtime of another distribution, seen through a guard.

What its code raises of its own, and what it answers against the contract, is an error that names
it. A runtime that fails in a forecast leaves the others their answers.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from packager import guard
from packager.predict.forecast import Speed
from packager.predict.memory import Drafting, Footprint
from packager.predict.offload import Split
from packager.recipe import Recipe
from packager.runtime import BuildNeeds, Runtime, Tools

_TEXT = (str, type(None))
_ANSWERS: dict[str, tuple[type, ...]] = {
    "artifact_bytes": (int,),
    "build_needs": (BuildNeeds,),
    "decode_bytes": (int,),
    "drafting": (Drafting,),
    "footprint": (Footprint,),
    "held_back": _TEXT,
    "how_to_run": (str,),
    "least_file_bytes": (int,),
    "obstacle": _TEXT,
    "recipe": (Recipe,),
    "recipes": (list, tuple),
    "speed": (Speed,),
    "split": (Split,),
    "tools": (Tools,),
}
_CHANGED = ("with_additions", "with_repack", "with_adapter_inputs")
"""Methods that answer with another adapter."""
_HINT = (
    "Update or remove what brings it, or set QWEN_PACK_PLUGINS=0 to use the built-in runtimes "
    "alone; `python -m packager.contract NAME` shows its author what is wrong."
)


# Any: an adapter of a class that nobody here knows, and what it answers.
def guarded(adapter: Any, whose: str) -> Runtime:
    """The adapter with every public method guarded. `whose` says what brings it, as the subject of
    a sentence: `the runtime 'x' (module:Class)`."""

    def look(name: str, answer: Any) -> Any:
        if name in _CHANGED:
            return guarded(answer, whose)
        wrong = _breach(name, answer)
        if wrong is not None:
            raise guard.Breach(wrong)
        return answer

    seen: Runtime = guard.guarded(adapter, whose, _HINT, look)
    return seen


def _breach(name: str, answer: Any) -> str | None:
    """What is wrong with an answer, as the end of a sentence; None where it is what the contract
    asks for. A figure that is no number of bytes would be compared with limits all the same, and
    what is not a number passes each of them."""
    kinds = _ANSWERS.get(name)
    if kinds is None:
        return None
    if not any(isinstance(answer, kind) for kind in kinds):
        return (
            f"{answer!r:.80}, which is not a valid {' or '.join(kind.__name__ for kind in kinds)}"
        )
    if kinds == (int,):
        return None if _bytes(answer) else f"{answer!r}, which is not a valid number of bytes"
    if name == "recipes":
        listed: tuple[object, ...] = tuple(answer)
        odd = next((one for one in listed if not isinstance(one, Recipe)), None)
        return None if odd is None else f"{odd!r:.80} among them, which is not a valid Recipe"
    if isinstance(answer, Footprint | Drafting | BuildNeeds):
        parts = {field.name: getattr(answer, field.name) for field in fields(answer)}
        for part, value in parts.items():
            if not (_bytes(value) or value is None or isinstance(value, Drafting)):
                return f"{part} = {value!r:.80}, which is not a valid number of bytes"
    if isinstance(answer, Speed):
        for field in fields(answer):
            value = getattr(answer, field.name)
            # Neither what is not a number nor the infinite is below it.
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                return f"{field.name} = {value!r:.80}, which is not a valid factor"
    return None


def _bytes(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
