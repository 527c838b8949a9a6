"""Transports of other distributions, found by entry points as runtimes are. The name of an entry
point in the group `qwen_pack.transports` is the scheme of its addresses; its value is called with
the whole address, and returns a packager.lab.transport.Transport or raises PackError (usage).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from packager.errors import usage

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "qwen_pack.transports"
BUILT_IN = ("ssh", "adb", "local")
"""Schemes that no plug-in replaces."""
PLUG_INS = "QWEN_PACK_PLUGINS"
"""The variable that leaves everything of other distributions out when it is `0`."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_PARTS = ("kind", "folder", "prefix", "phone", "argv", "failure")


def schemes() -> tuple[str, ...]:
    """The schemes that plug-ins bring, in alphabetical order; none is imported."""
    return tuple(sorted(_entry_points()))


def maker(scheme: str) -> Callable[[str], Any]:
    """What makes a transport of an address with that scheme. Raises PackError (usage) for a plug-in
    that does not load; what it makes is checked."""
    point = _entry_points()[scheme]
    try:
        make = point.load()
    except Exception as error:  # foreign code: whatever it raises, the sentence names whose it is
        name = type(error).__name__
        raise usage(
            f"The transport {scheme!r} ({point.value}) does not load: {name}: {error}.",
            f"Install {point.dist.name if point.dist else 'the distribution that brings it'} "
            f"again, or remove it.",
        ) from error

    # Late: for an address that is not ours alone.
    from packager.guard import called, guarded

    whose = f"the transport {scheme!r} ({point.value})"
    hint = "Update or remove it."

    def checked(address: str) -> Any:
        made = called(lambda: make(address), whose, "making one", hint)
        absent = [part for part in _PARTS if not hasattr(made, part)]
        if absent:
            raise usage(
                f"The transport {scheme!r} ({point.value}) lacks {', '.join(absent)}.",
                hint,
            )
        return guarded(made, whose, hint)

    return checked


def _entry_points() -> dict[str, EntryPoint]:
    """Entry points by scheme, each once; a plug-in cannot take a built-in scheme."""
    if os.environ.get(PLUG_INS) == "0":
        return {}
    # It brings importlib.metadata, whose 10 ms only an address that is not ours pays.
    from packager.engines import plug_ins_by_name

    return plug_ins_by_name(
        GROUP,
        lambda point: point.name not in BUILT_IN and _SCHEME.fullmatch(point.name) is not None,
    )
