"""The address that somebody most likely meant who wrote something else."""

from __future__ import annotations

import re
from collections.abc import Callable

from packager.errors import PackError
from packager.lab.transport_plugins import BUILT_IN

_BARE = {"ssh": "ssh://HOST", "adb": "adb:", "local": "local:"}
_HOST = re.compile(
    r"(?P<user>[\w.-]+@)?(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*)(:(?P<port>\d{1,5})|:?(?P<folder>/.*)?)",
    re.ASCII,
)


def did_you_mean_address(text: str, parse: Callable[[str], object]) -> str:
    """` Did you mean 'ssh://pi5'?` for `pi5`, `ssh:pi5` or scp's `pi@pi5:/mnt`; an empty string
    where nothing is near that `parse` takes. Whether such a machine is there is not known."""
    meant = _meant(text.strip())
    if meant is None or meant == text:
        return ""
    try:
        parse(meant)
    except PackError:
        return ""
    return f" Did you mean {meant!r}?"


def _meant(text: str) -> str | None:
    scheme, colon, rest = text.partition(":")
    scheme, rest = scheme.casefold(), rest.lstrip("/")
    if scheme not in BUILT_IN:
        host = _HOST.fullmatch(text.partition("://")[2] or text)
        if host is None:
            return None
        port = f":{host['port']}" if host["port"] else ""
        return f"ssh://{host['user'] or ''}{host['host']}{port}{host['folder'] or ''}"
    if not colon or not rest:
        return _BARE[scheme]
    return f"ssh://{rest}" if scheme == "ssh" else f"{scheme}:{rest}"
