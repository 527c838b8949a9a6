"""What another distribution brings, seen through a guard: an exception of its own becomes an error
that names it, so that no command ends with the traceback of somebody else's code."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from packager.errors import PackError, usage

# Any: an object of a class that nobody here knows, and what its methods take and give.

Looked = Callable[[str, Any], Any]
"""What becomes of a method's answer, by its name; raises Breach for one against the contract."""


class Breach(Exception):
    """What is wrong with an answer, as the end of a sentence."""


def guarded(thing: Any, whose: str, hint: str, look: Looked = lambda name, answer: answer) -> Any:
    """The same with every public method guarded; it calls its own as they are. `whose` is the
    subject of the sentences, in small letters: `the runtime 'x' (module:Class)`."""
    members: dict[str, Any] = {
        "__module__": type(thing).__module__,
        "__doc__": type(thing).__doc__,
        "__eq__": lambda self, other: bool(thing == other),
        "__hash__": lambda self: hash(thing),
    }
    for name in dir(thing):
        if not name.startswith("_"):
            # In the class, where Python's check of a protocol looks from 3.12 on.
            members[name] = _member(thing, name, whose, hint, look)
    return type(type(thing).__name__, (), members)()


def called(step: Callable[[], Any], whose: str, what: str, hint: str) -> Any:
    """What a step of somebody else's code gives. Raises PackError (usage) for whatever it raises of
    its own; MemoryError is the machine's."""
    try:
        return step()
    except (PackError, MemoryError):
        raise
    except Exception as error:
        raise _failure(f"{whose} fails in {what}: {type(error).__name__}: {error}", hint) from error


def _member(thing: Any, name: str, whose: str, hint: str, look: Looked) -> Any:
    if not callable(getattr(thing, name)):
        return property(lambda self: getattr(thing, name))
    method: Callable[..., Any] = getattr(thing, name)

    @wraps(method)
    def told(*arguments: Any, **named: Any) -> Any:
        answer = called(lambda: method(*arguments, **named), whose, f"{name}()", hint)
        try:
            return look(name, answer)
        except Breach as breach:
            raise _failure(f"{whose} answers {name}() with {breach}", hint) from None

    return staticmethod(told)


def _failure(says: str, hint: str) -> PackError:
    return usage(f"{says[0].upper()}{says[1:]}.", hint)
