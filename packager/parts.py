"""Which members of a part of the contract (packager.runtime) an adapter lacks. A part is there when
all of it is: an adapter that was written for another version may have some of it."""

from __future__ import annotations

from packager.errors import PackError, usage
from packager.runtime import Runtime

_IN_SEVERAL = ("projector",)
"""Members of more than one part: to have one says nothing about the others."""


def members(part: type) -> tuple[str, ...]:
    """The names that a part asks for, in alphabetical order."""
    own = {*part.__annotations__, *vars(part)}
    return tuple(sorted(name for name in own if not name.startswith("_")))


def missing(adapter: object, part: type) -> tuple[str, ...]:
    """The names of a part that an adapter lacks."""
    return tuple(name for name in members(part) if not hasattr(adapter, name))


def half(adapter: object, part: type) -> str | None:
    """That an adapter has begun a part and not finished it, as a sentence without its end; None
    where it has all of it, or nothing that is this part's alone."""
    alone = {*members(part)} - {*members(Runtime), *_IN_SEVERAL}
    absent = missing(adapter, part)
    if not absent or not any(hasattr(adapter, name) for name in alone):
        return None
    name = getattr(adapter, "name", type(adapter).__name__)
    return (
        f"the adapter of {name} lacks {', '.join(absent)}, which {part.__name__} in "
        f"{part.__module__} asks for"
    )


def refusal(adapter: object, part: type) -> PackError | None:
    """The same as an error (usage) with the way on."""
    begun = half(adapter, part)
    if begun is None:
        return None
    return usage(f"{begun[0].upper()}{begun[1:]}.", "Update the distribution that brings it.")


def refuse_half(adapter: object, part: type) -> None:
    """Raise that error where an adapter has begun a part and not finished it."""
    error = refusal(adapter, part)
    if error is not None:
        raise error
