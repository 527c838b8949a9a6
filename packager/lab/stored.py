"""What pushes left on a device: the folders of models, agents and Python environments, and removing
the ones that were not used for longest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.errors import unreachable
from packager.lab.transport import Transport, last_line, run

_ROW = re.compile(r"(\d{1,12}) (\d{1,15}) ([0-9a-f]{24})")
# The time of a folder is that of its last use, which a push sets. Android's date and du know these
# options as well.
_LIST = """cd {folder} 2>/dev/null || exit 0
for d in *; do
  [ -d "$d" ] && printf '%s %s %s\\n' "$(date -r "$d" +%s)" "$(du -sk "$d" | cut -f1)" "$d"
done
:"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One folder on the device: when it was used last (seconds of its clock), and its bytes."""

    used_at: int
    bytes: int
    name: str


def stored(transport: Transport) -> list[Stored]:
    """What is there, the one that was used last first; nothing that is not ours."""
    told = run(transport, _LIST.format(folder=transport.folder))
    if told.code:
        raise unreachable(f"The device does not report what it holds: {last_line(told.said)}.")
    rows = (_ROW.fullmatch(line.strip()) for line in told.text.splitlines())
    found = [Stored(int(row[1]), int(row[2]) * 1024, row[3]) for row in rows if row]
    return sorted(found, key=lambda one: (-one.used_at, one.name))


def to_remove(rows: list[Stored], keep_bytes: int) -> list[Stored]:
    """What must go so that no more than `keep_bytes` stay; `rows` as `stored` orders them."""
    kept = 0
    gone: list[Stored] = []
    for row in rows:
        if gone or kept + row.bytes > keep_bytes:
            gone.append(row)
        else:
            kept += row.bytes
    return gone


def remove(transport: Transport, rows: list[Stored]) -> None:
    """Remove those folders. An agent that runs from one of them ends as it would have; Python that
    does finds no further module there."""
    for row in rows:
        # The name is 24 hexadecimal digits: it means nothing to a shell, and no other folder.
        told = run(transport, f"cd {transport.folder} && rm -rf ./{row.name}")
        if told.code:
            raise unreachable(f"The device does not remove a folder: {last_line(told.said)}.")
