"""The keys of a screen as data: for the help screen, the palette, and the settings that rebind
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

if TYPE_CHECKING:
    from textual.screen import Screen

_MODULES = (
    *(
        "tui.app",
        "tui.widgets.slider",
        "tui.widgets.lists",
        "tui.widgets.candidates",
        "tui.widgets.misses",
        "tui.widgets.pane",
    ),
    *(
        f"tui.screens.{name}"
        for name in ("base", "device", "need", "candidates", "plan", "build", "result")
    ),
    *(f"tui.screens.{name}" for name in ("export", "shelf", "compare", "pareto", "measuring")),
    *(f"tui.screens.{name}" for name in ("sweep", "sweeps", "options", "package_base")),
)


@dataclass(frozen=True, slots=True)
class Described:
    """One action that a key starts now: whose it is, its keys, and the call that does the same."""

    owner: str
    binding: Binding
    keys: tuple[str, ...]
    run: Callable[[], Any]

    @property
    def title(self) -> str:
        """What it is called in the palette."""
        return self.binding.description


def described(screen: Screen[Any]) -> list[Described]:
    """Every action with an id that is active on the screen, each once with all its keys; the
    focused part comes first."""
    rows: dict[str, Described] = {}
    for key, active in screen.active_bindings.items():
        binding, node = active.binding, active.node
        if binding.id is None or not active.enabled:
            continue
        known = rows.get(binding.id)
        if known is not None:
            rows[binding.id] = Described(known.owner, known.binding, (*known.keys, key), known.run)
            continue
        # The palette calls this later, when it is itself on top: the action must still reach the
        # node it belongs to.
        rows[binding.id] = Described(
            _owner(node), binding, (key,), partial(screen.app.run_action, binding.action, node)
        )
    return list(rows.values())


def _owner(node: Any) -> str:
    from textual.app import App
    from textual.screen import Screen

    if isinstance(node, App):
        return "Everywhere"
    return "This screen" if isinstance(node, Screen) else "The focused part"


def all_ids() -> frozenset[str]:
    """The ids of every binding there is; imports every screen."""
    return frozenset(all_keys())


def all_keys() -> dict[str, str]:
    """The keys of every id by default, written as the settings write them."""
    keys: dict[str, str] = {}
    for name in _MODULES:
        for value in vars(import_module(name)).values():
            if isinstance(value, type):
                keys |= {
                    binding.id: binding.key
                    for binding in getattr(value, "BINDINGS", ())
                    if isinstance(binding, Binding) and binding.id
                }
    return keys
