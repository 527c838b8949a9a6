"""Files to a device, by their digests: only what is missing, resumed where a cut left it, under
their names only when the device has found the same digest.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packager.errors import PackError, bad_input, no_room, unreachable
from packager.escapes import command, sh
from packager.lab.transport import Done, Transport, last_line, run
from packager.units import human_bytes

_CHUNK = 1 << 18
_SIZE = re.compile(r"[0-9]{1,18}")
_MOST_SAID = 1 << 16
_ASKED = 20
"""Names in one command: each may have a thousand bytes, and a phone's shell takes a few pages."""
_SPARE = 64 << 20
"""Bytes of the device's disk that a push leaves free."""
_BYTES_PER_S = 4e6
"""The slowest disk that is waited for."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One file to be on the device: where it lies here, its name there, and what it must be."""

    path: Path
    name: str
    size: int
    sha256: str


def folder_of(transport: Transport, files: Sequence[Sent]) -> str:
    """The folder of exactly these files there, as a word of the shell: another set of files is
    another folder."""
    rows = "".join(f"{sent.sha256} {sent.name}\n" for sent in sorted(files, key=lambda f: f.name))
    return f"{transport.folder}/{hashlib.sha256(rows.encode()).hexdigest()[:24]}"


def push(transport: Transport, files: Sequence[Sent]) -> Generator[tuple[int, int], None, str]:
    """Send what is missing; yields bytes done and in all, returns the path of the folder there.

    Raises PackError: exit code 5 where the device goes away, 7 where its disk is full, 6 where what
    arrives is not what was sent. Nothing but whole files stands there under its name.
    """
    total, done = sum(sent.size for sent in files), 0
    whole = _made(transport, folder_of(transport, files))
    folder = sh(whole)
    below = sorted({str(parent) for f in files if (parent := PurePosixPath(f.name).parent).name})
    if below:
        made = run(transport, f"cd {folder} && umask 077 && mkdir -p {command(below)}")
        if made.code:
            raise _refused(made, "The device does not let us make a folder")
    have = _have(transport, folder, files)
    missing = sum(max(0, sent.size - have[sent.name]) for sent in files)
    if missing:
        _check_room(transport, folder, missing)
    for sent in files:
        if have[sent.name] < sent.size or not _is_there(transport, folder, sent):
            for sending in _send(transport, folder, sent, have[sent.name]):
                yield done + sending, total
        done += sent.size
        yield done, total
    return whole


def _made(transport: Transport, folder: str) -> str:
    """Make a folder, the word of a shell, there: its whole path. Its time says when it was last
    used."""
    made = run(transport, f"umask 077; mkdir -p {folder} && cd {folder} && touch . && pwd -P")
    path = made.text.strip("\n")
    if made.code or not path.startswith("/") or not path.isprintable():
        raise _refused(made, "The device does not let us make a folder")
    return path


def _is_there(transport: Transport, folder: str, sent: Sent) -> bool:
    name = sh(sent.name)
    return run(transport, f"cd {folder} && [ -f {name} ]").code == 0


def _have(transport: Transport, folder: str, files: Sequence[Sent]) -> dict[str, int]:
    """Bytes of each file that are there, whole or in part; a part that is too long is no part of
    it."""
    have: dict[str, int] = {}
    for start in range(0, len(files), _ASKED):
        asked = files[start : start + _ASKED]
        done = run(
            transport,
            f"cd {folder} || exit; for f in {command([sent.name for sent in asked])}; do "
            'if [ -f "$f" ]; then wc -c < "$f"; elif [ -f "$f.part" ]; then wc -c < "$f.part"; '
            "else echo 0; fi; done",
        )
        sizes = done.text.split()
        if done.code or len(sizes) != len(asked) or not all(map(_SIZE.fullmatch, sizes)):
            raise _refused(done, "The device does not report what it has")
        for sent, size in zip(asked, map(int, sizes), strict=True):
            have[sent.name] = size if size <= sent.size else 0
    return have


def _check_room(transport: Transport, folder: str, missing: int) -> None:
    free = free_bytes(transport, folder)
    if free is not None and free < missing + _SPARE:
        raise no_room(
            f"The device has {human_bytes(free)} free, and {human_bytes(missing + _SPARE)} are "
            "needed there.",
            "Free some space on it, or name a folder on another disk in --on.",
        )


def free_bytes(transport: Transport, folder: str) -> int | None:
    """Bytes free where a folder is that is there, a word of the shell; None on a device without df,
    whose disk says itself when it is full."""
    done = run(transport, f"df -Pk {folder} | tail -n 1")
    words = done.text.split()
    # A device path with blanks moves the columns, the number before the share stays where it is.
    at = next((place for place, word in enumerate(words) if word.endswith("%")), 0)
    if done.code or at < 1 or not _SIZE.fullmatch(words[at - 1]):
        return None
    return int(words[at - 1]) * 1024


def _send(transport: Transport, folder: str, sent: Sent, have: int) -> Generator[int, None, None]:
    """Append what is missing to the part, compare its digest there, give it its name. A part that
    turns out to be something else is sent once more from its beginning."""
    name, part = sh(sent.name), sh(f"{sent.name}.part")
    disk_s = 60 + sent.size / _BYTES_PER_S
    for start in (have, 0) if have else (0,):
        anew = f"rm -f {part} {name}; " if start == 0 else ""
        appended = f"cd {folder} && {{ {anew}umask 077 && cat >> {part}; }}"
        yield from _append(transport, appended, sent, start)
        done = run(transport, f"cd {folder} && sha256sum {part}", disk_s)
        if done.code:
            raise _refused(done, "The device cannot compare what arrived")
        if done.text.split()[:1] == [sent.sha256]:
            mode = "700" if sent.path.stat().st_mode & 0o100 else "600"
            # On the disk before it has its name, for whoever pulls the plug; and no disk is busy
            # with it while the model is measured. Android's sync knows no file.
            flush = f"{{ sync {part} || sync; }} 2>/dev/null; mv -f {part} {name}"
            named = run(transport, f"cd {folder} && chmod {mode} {part} && {{ {flush}; }}", disk_s)
            if named.code:
                raise _refused(named, "The device does not let us name a file")
            return
    run(transport, f"cd {folder} && rm -f {part}")
    raise bad_input(
        f"{sent.name} arrived on the device as something else, twice.",
        "Check the cable, the network and the device's disk, and push again.",
    )


def _append(
    transport: Transport, command: str, sent: Sent, start: int
) -> Generator[int, None, None]:
    child = subprocess.Popen(
        transport.argv(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stderr is not None
    try:
        with sent.path.open("rb") as file:
            file.seek(start)
            offset = start
            try:
                while chunk := file.read(min(_CHUNK, sent.size - offset)):
                    child.stdin.write(chunk)
                    offset += len(chunk)
                    yield offset
                child.stdin.close()
            except BrokenPipeError:
                pass  # the reason stands on standard error
        complaint = child.stderr.read(_MOST_SAID).decode("utf-8", "replace")
        child.stderr.close()
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
    if code:
        raise transport.failure(code, complaint) or _refused(
            Done(code, b"", complaint), "The device stopped taking the file"
        )


def _refused(done: Done, what: str) -> PackError:
    """The sentence for a command that failed there."""
    complaint = done.said.casefold()
    if "no space left" in complaint or "disk quota" in complaint:
        return no_room("The device's disk is full.", "Free some space on it, or name a folder.")
    if "read-only" in complaint or "permission denied" in complaint:
        return unreachable(
            f"{what}: {last_line(done.said)}.", "Name a folder of yours on it in --on."
        )
    return unreachable(f"{what}: {last_line(done.said)} (exit code {done.code}).")
