"""Machines by names of the user's own, so that `--on pi5` does for `--on ssh://pi@pi5`.

`lab.toml` in the user's configuration, or the file that QWEN_PACK_LAB names, has one table,
`[machines]`, of name and address.
"""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import AbstractContextManager
from pathlib import Path

from packager.errors import PackError, bad_input, usage
from packager.escapes import toml
from packager.files import expanded, write_atomically
from packager.foreign import bounded_bytes
from packager.lab.meant import did_you_mean_address
from packager.lab.transport import KNOWN, parse
from packager.lab.transport_plugins import BUILT_IN
from packager.limits import SETTINGS_BYTES
from packager.locks import alone_in
from packager.names import did_you_mean

FILE = "QWEN_PACK_LAB"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_HEAD = (
    "# Machines that `--on NAME` reaches. `qwen-pack lab add NAME ADDRESS` writes this file.\n\n"
)


def path() -> Path:
    """Where the names stand; the file need not be there."""
    chosen = os.environ.get(FILE)
    if chosen:
        return expanded(chosen).absolute()
    from platformdirs import user_config_path

    try:
        return user_config_path("qwen-pack", appauthor=False) / "lab.toml"
    except RuntimeError:
        raise usage(
            "This user has no home folder to keep the names of machines in.",
            f"Name a file with {FILE}.",
        ) from None


def machines() -> dict[str, str]:
    """Address by name, in the order of the file. Raises PackError (bad input) with file and key."""
    file = path()
    if not file.exists():
        return {}
    try:
        data = tomllib.loads(bounded_bytes(file, SETTINGS_BYTES).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise bad_input(f"{file} cannot be read: {error}.", "Mend or remove it.") from None
    unknown = sorted(set(data) - {"machines"})
    if unknown:
        raise bad_input(
            f"{file}: {unknown[0]} is not known.{did_you_mean(unknown[0], ['machines'])}",
            "It has one table, [machines].",
        )
    rows = data.get("machines", {})
    if not isinstance(rows, dict):
        raise bad_input(f"{file}: machines is not a table.", "Write [machines] above the names.")
    for name, address in rows.items():
        if not _NAME.fullmatch(name) or not isinstance(address, str):
            raise bad_input(
                f"{file}: machines.{name} is not a name with an address.",
                'Write a line such as pi5 = "ssh://pi@pi5".',
            )
        try:
            parse(address)
        except PackError as error:
            raise bad_input(f"{file}: machines.{name}: {error.message}", error.hint) from None
    return dict(rows)


def address_of(named: str) -> str:
    """The address that `--on` means: itself, or that of a machine of the user's. Raises PackError
    (usage) for a name that is not known."""
    if ":" in named:
        return named
    known = machines()
    if named not in known:
        scheme = named.casefold() in BUILT_IN
        meant = "" if scheme else did_you_mean(named, known)
        meant = meant or did_you_mean_address(named, parse)
        name = named if _NAME.fullmatch(named) else "NAME"
        raise usage(
            f"{named!r} is neither an address nor the name of a machine.{meant}",
            f"Give {KNOWN}."
            if scheme
            else f"Give an address, or name one: qwen-pack lab add {name} ssh://USER@HOST",
        )
    return known[named]


def add(name: str, address: str) -> Path:
    """Name a machine, or give a name another address. Raises PackError (usage)."""
    if not _NAME.fullmatch(name):
        raise usage(
            f"{name!r} is not a name for a machine.", "Use letters, digits, hyphens, underscores."
        )
    parse(address)
    with _changing():
        return _write({**machines(), name: address})


def remove(name: str) -> Path:
    """Forget a name. Raises PackError (usage) where it is not known."""
    with _changing():
        known = machines()
        if name not in known:
            raise usage(
                f"No machine is named {name!r}.{did_you_mean(name, list(known))}",
                "`qwen-pack lab list` shows them.",
            )
        return _write({other: address for other, address in known.items() if other != name})


def _changing() -> AbstractContextManager[None]:
    folder = path().parent
    folder.mkdir(parents=True, exist_ok=True)
    return alone_in(folder)


def _write(rows: dict[str, str]) -> Path:
    # Names are bare keys, and addresses hold neither quotes that end the string nor line breaks:
    # `parse` lets no such address through, but a prefix of local: may have a quote or a backslash.
    lines = (f"{name} = {toml(address)}\n" for name, address in rows.items())
    file = path()
    write_atomically(file, f"{_HEAD}[machines]\n{''.join(lines)}".encode())
    return file
