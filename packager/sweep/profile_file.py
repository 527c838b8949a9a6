"""Read a profile file (TOML): the flags of `build` that say how a model is to behave, as keys."""

from __future__ import annotations

from pathlib import Path

from packager.chat.profile import Profile
from packager.chat.profile_files import parse
from packager.errors import usage
from packager.foreign import bounded_bytes, load_toml
from packager.names import did_you_mean

KEYS = ("thinking", "system_prompt", "tools", "sampling")
_MOST_BYTES = 1 << 20


def read(path: Path) -> Profile:
    """The profile in a file; `system_prompt` and `tools` name files beside it.

    Raises PackError naming the file and the key: exit code 2 for a word that is none, 6 for content
    that is not text or no tools.
    """
    try:
        data = load_toml(bounded_bytes(path, _MOST_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise usage(f"There is no profile file {str(path)!r}.", "Check the path.") from None
    except ValueError as error:
        raise usage(f"{path.name}: this is not TOML: {error}.", "Is it the right file?") from None
    for key, value in data.items():
        if key not in KEYS:
            near = did_you_mean(key, KEYS) or f" Known: {', '.join(KEYS)}."
            raise usage(f"{path.name}: {key} is not a key of a profile file.{near}")
        if not isinstance(value, str) or not value.strip():
            raise usage(f"{path.name}: {key} must be a text, as the flag of `build` takes it.")
    files = {
        key: path.parent / data[key] if key in data else None for key in ("system_prompt", "tools")
    }
    return parse(data.get("thinking"), files["system_prompt"], files["tools"], data.get("sampling"))
