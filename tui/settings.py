"""The person's own keys and theme, from `tui.toml` in the configuration folder of qwen-pack.

theme = "nord"

[keys]
"build.cancel" = "f9"        # ids as the help screen shows them
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def read(path: Path, ids: Collection[str], themes: Collection[str]) -> Settings:
    """The settings in the file; a mistake in it costs a sentence and never the start. `ids` and
    `themes` are what there is."""
    try:
        data = load_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        return Settings(problems=(f"{path} cannot be read: {error}.",))
    problems = [
        f"{path}: {key} is no key.{did_you_mean(key, ('theme', 'keys'))}"
        for key in data
        if key not in ("theme", "keys")
    ]
    theme = data.get("theme")
    if theme is not None and theme not in themes:
        problems.append(f"{path}: there is no theme {theme!r}.{did_you_mean(str(theme), themes)}")
        theme = None
    keys = _keys(data.get("keys", {}), ids, path, problems)
    return Settings(theme, keys, tuple(problems))


def _keys(table: Any, ids: Collection[str], path: Path, problems: list[str]) -> dict[str, str]:
    if not isinstance(table, dict):
        problems.append(f"{path}: keys must be a table, written [keys].")
        return {}
    known: dict[str, str] = {}
    for name, key in table.items():
        if name not in ids:
            problems.append(f"{path}: keys.{name} is no action.{did_you_mean(name, ids)}")
        elif not isinstance(key, str) or not key.strip():
            problems.append(f'{path}: keys.{name} must be a key such as "f9" or "ctrl+b,b".')
        else:
            known[name] = key
    return known
