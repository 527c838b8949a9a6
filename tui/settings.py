"""The person's own keys and theme, from `tui.toml` in the configuration folder of qwen-pack.

theme = "nord"

[keys]
"build.cancel" = "f9"        # ids as the help screen shows them
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packager.errors import bad_input
from packager.foreign import load_toml
from packager.names import did_you_mean

NAME = "tui.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says, as far as it can be used; `problems` are sentences about the rest."""

    theme: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def config_file() -> Path:
    """Where the file is looked for; it need not exist."""
    from platformdirs import user_config_path

    return user_config_path("qwen-pack", appauthor=False) / NAME


def read(
    path: Path, ids: Collection[str], themes: Collection[str], keys: Mapping[str, str] | None = None
) -> Settings:
    """The settings in the file; a mistake in it costs a sentence and never the start.

    `ids` and `themes` are what there is, `keys` the keys of every id by default, written as the
    file writes them.
    """
    try:
        data = load_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        return Settings(problems=(f"It cannot be read: {error}.",))
    problems = [
        f"{key} is not a setting.{did_you_mean(key, ('theme', 'keys'))}"
        for key in data
        if key not in ("theme", "keys")
    ]
    theme = data.get("theme")
    if theme is not None and theme not in themes:
        problems.append(f"There is no theme {theme!r}.{did_you_mean(str(theme), themes)}")
        theme = None
    known = _keys(data.get("keys", {}), ids, problems)
    return Settings(theme, _without_clashes(known, keys or {}, problems), tuple(problems))


def _keys(table: Any, ids: Collection[str], problems: list[str]) -> dict[str, str]:
    if not isinstance(table, dict):
        problems.append("keys must be a table, written [keys].")
        return {}
    known: dict[str, str] = {}
    for name, key in table.items():
        if name not in ids:
            problems.append(f"keys.{name} is not an action.{did_you_mean(name, ids)}")
        elif not isinstance(key, str) or not key.strip():
            problems.append(f'keys.{name} must be a key such as "f9" or "ctrl+b,b".')
        elif wrong := [one for one in split_keys(key) if not _is_key(one)]:
            problems.append(
                f'keys.{name}: there is no key {wrong[0]!r}. Keys are written like "f9", "ctrl+b" '
                'or "x".'
            )
        else:
            known[name] = key
    return known


def split_keys(keys: str) -> list[str]:
    """The keys of an action, as one line of the file names them."""
    return [key.strip() for key in keys.split(",")] if keys.strip() != "," else [","]


def _is_key(text: str) -> bool:
    """Whether a terminal can send it: a character, or the name of a key, with or without a
    modifier."""
    from textual.keys import Keys

    names = {key.value for key in Keys} | {
        "question_mark",
        "slash",
        "minus",
        "plus",
        "circumflex_accent",
        "dollar_sign",
        "comma",
        "full_stop",
    }
    *modifiers, last = text.split("+") if len(text) > 1 else [text]
    fine = all(key in ("ctrl", "shift", "alt", "super", "meta") for key in modifiers)
    return fine and (len(last) == 1 or text in names or last in names)


def _without_clashes(
    known: dict[str, str], defaults: Mapping[str, str], problems: list[str]
) -> dict[str, str]:
    """The keys without those that another action of the same screen has; that action would be out
    of reach."""
    kept = dict(known)
    for name, key in known.items():
        now = {**defaults, **kept}
        others = _holders(name, key, now)
        if others:
            problems.append(
                f"keys.{name}: {key} is the key of {', '.join(sorted(others)[:2])} as well; the "
                "default stays."
            )
            del kept[name]
    return kept


def _holders(name: str, key: str, now: Mapping[str, str]) -> list[str]:
    """Actions that can be on a screen with this one and have one of its keys."""
    return [
        other
        for other, theirs in now.items()
        if other != name and _meet(name, other) and set(split_keys(key)) & set(split_keys(theirs))
    ]


def clash(name: str, key: str, keys: Mapping[str, str], defaults: Mapping[str, str]) -> str:
    """Why an action cannot have a key, as a sentence, nothing where it can; `keys` are the
    person's, `defaults` those of every id."""
    if not all(_is_key(one) for one in split_keys(key)):
        return f"{key} cannot be written into the settings."
    others = _holders(name, key, {**defaults, **keys})
    if not others:
        return ""
    from textual.keys import format_key

    return f"{format_key(key)} is the key of {', '.join(sorted(others)[:2])}."


def _meet(action: str, other: str) -> bool:
    """Whether two actions can be on one screen: what stands before the dot says where an action is
    at home."""
    everywhere = ("app", "screen", "list", "slider", "check")
    first, second = action.partition(".")[0], other.partition(".")[0]
    of_packages = ("package", "shelf", "result")
    together = first == second or (first in of_packages and second in of_packages)
    return together or first in everywhere or second in everywhere


def keep_key(path: Path, name: str, key: str | None) -> None:
    """Write the key of an action into the file, None takes it out; whatever else stands in it,
    comments too, stays as it is. Raises OSError, and PackError (bad input) for a file that has its
    keys in another form than a line each."""
    from packager.files import write_atomically

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    line = "" if key is None else f'"{name}" = "{key}"\n'
    own = re.compile(rf"""(?m)^[ \t]*["']?{re.escape(name)}["']?[ \t]*=.*\n?""")
    header = re.search(r"(?m)^\[keys\][ \t]*(#.*)?\n?", text)
    if header is None:
        changed = text if key is None else f"{text.rstrip()}\n\n[keys]\n{line}".lstrip()
    else:
        following = re.search(r"(?m)^\[", text[header.end() :])
        end = len(text) if following is None else header.end() + following.start()
        table, count = own.subn(lambda _: line, text[header.end() : end], count=1)
        changed = text[: header.end()].rstrip("\n") + "\n"
        changed += (table if count else f"{line}{table}") + text[end:]
    wanted = {**_table(text), name: key}
    if _table(changed) != {one: value for one, value in wanted.items() if value is not None}:
        raise bad_input(
            f"{path} has its keys in a form that is not changed here.",
            f'Add this line in an editor: "{name}" = "{key}".'
            if key
            else "Remove the line in an editor.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, changed.encode())


# Any: TOML of which nothing has been checked.
def _table(text: str) -> dict[str, Any]:
    try:
        table = load_toml(text).get("keys", {})
    except ValueError:
        return {"": "not valid TOML"}
    return table if isinstance(table, dict) else {"": table}


def keep_theme(path: Path, theme: str) -> None:
    """Write the theme into the file; whatever else stands in it, comments too, stays as it is.
    Raises OSError."""
    from packager.files import write_atomically

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    line = f'theme = "{theme}"'
    table = re.search(r"(?m)^\s*\[", text)
    top = len(text) if table is None else table.start()
    head, replaced = re.subn(r"(?m)^theme\s*=.*$", lambda _: line, text[:top], count=1)
    head = head if replaced else f"{line}\n{head}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{head}{text[top:]}".encode())
