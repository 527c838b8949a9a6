"""Devices as pictures made of characters, by kind, and the order in which kinds are listed."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "phone": "Phones",
    "single-board": "Single-board computers",
    "jetson": "NVIDIA Jetson",
    "riscv": "RISC-V boards",
    "laptop": "Laptops",
    "mini-pc": "Mini PCs",
    "gpu": "Graphics cards",
    "server": "Servers",
}
"""What each kind is called above its devices: those that people carry come first."""

_PICTURES: dict[str, tuple[str, ...]] = {
    "phone": (
        "╭─────╮",
        "│     │",
        "│     │",
        "│  ○  │",
        "╰─────╯",
    ),
    "single-board": (
        "┌┬┬┬┬┬┬────┐",
        "│ ┌──┐  ▒▒ ├┐",
        "│ └──┘  ▒▒ ├┘",
        "│ ▪ ▪ ┌──┐ ├┐",
        "└─────┴──┴─┴┘",
    ),
    "laptop": (
        "  ┌────────┐",
        "  │        │",
        "  │        │",
        "  └────────┘",
        " ▔▔▔▔▔▔▔▔▔▔▔▔",
    ),
    "mini-pc": (
        "╭──────────╮",
        "│          │",
        "│ ▪  ═  ═  │",
        "╰──────────╯",
        "  ▔      ▔",
    ),
    "gpu": (
        "┏━━━━━━━━━━━┓",
        "┃ ╭──╮ ╭──╮ ┃",
        "┃ ╰──╯ ╰──╯ ┃",
        "┗┯┯┯┯┯┯━━━━━┛",
        "",
    ),
    "server": (
        "┌──────────┐",
        "│▪ ═══════ │",
        "├──────────┤",
        "│▪ ═══════ │",
        "└──────────┘",
    ),
}
_LIKE = {"jetson": "single-board", "riscv": "single-board"}


def picture(kind: str) -> tuple[str, ...]:
    """Five lines of text; empty for a kind without a picture."""
    return _PICTURES.get(_LIKE.get(kind, kind), ())


def order(kind: str) -> int:
    """The place of a kind in the list; unknown ones come last."""
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)
