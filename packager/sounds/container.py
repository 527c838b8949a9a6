"""What a sound's file says of itself before anything is decoded: its kind, and whether it ends
where it says.

WAV (RIFF and RF64), FLAC (RFC 9639), Ogg (RFC 3533) and MP3 (ISO/IEC 11172-3) are known; nothing is
decoded here. All functions raise PackError (exit code 6) with a sentence that begins with the
sound's name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import BinaryIO

from packager import limits
from packager.errors import PackError, bad_input

KINDS = {
    "WAV": (".wav", ".wave"),
    "FLAC": (".flac",),
    "Ogg": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
}
"""The kinds that are read, each with the endings of its files."""

CONVERT = "Save it as WAV, FLAC, Ogg or MP3."
_AGAIN = "Get the sound again, or save it again with a sound editor."
_UNKNOWN_SIZE = (0, 0xFFFFFFFF)
"""What programs that write into a pipe say of the length of a WAV."""
_TAIL = 1 << 17
"""Bytes in which the last page of an Ogg stands: none is larger than 65,307."""
_CHUNKS = 1000
_PDF, _ZIP = 1024, 22 + 0xFFFF
"""Bytes at the beginning or the end in which those files show themselves."""

_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a picture", re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0|RIFF.{4}WEBP", re.DOTALL)),
    ("a video or an MP4 sound", re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)),
    ("an AIFF sound", re.compile(rb"FORM.{4}AIF", re.DOTALL)),
    ("a MIDI file, which holds notes and no sound", re.compile(rb"MThd")),
    ("an AAC sound", re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")),
    ("a PDF document", re.compile(rb"%PDF-")),
    ("a Zip archive", re.compile(rb"PK\x03\x04|PK\x05\x06")),
    ("a program", re.compile(rb"\x7fELF|MZ.{58}|#!/", re.DOTALL)),
    ("text", re.compile(rb"\s*[<{]")),
)
_MP3 = re.compile(rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")


def read(path: Path, name: str) -> str:
    """The kind of a sound's file, one of KINDS, after a look at its beginning and its end."""
    size = path.stat().st_size
    if not size:
        raise bad_input(f"{name} is empty.", _AGAIN)
    if size > limits.SOUND_BYTES:
        raise bad_input(
            f"{name} has {size:,} bytes, more than {limits.SOUND_BYTES:,}.", "Cut it into pieces."
        )
    with path.open("rb") as file:
        kind = _kind(file.read(64), name)
        _check_ending(name, kind)
        _check_alone(file, size, name, kind)
        if kind == "WAV":
            _check_wav(file, size, name)
        elif kind == "Ogg":
            _check_ogg(file, size, name)
    return kind


def truncated(name: str) -> PackError:
    """The sentence for a sound that ends too early."""
    return bad_input(f"{name} is truncated: it ends before its sound does.", _AGAIN)


def _kind(head: bytes, name: str) -> str:
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head.startswith(b"fLaC"):
        return "FLAC"
    if head.startswith(b"OggS"):
        return "Ogg"
    other = next((what for what, pattern in _OTHERS if pattern.match(head)), None)
    if other is None and _MP3.match(head):
        return "MP3"
    if other:
        raise bad_input(f"{name} is {other}; WAV, FLAC, Ogg and MP3 are read.", CONVERT)
    raise bad_input(f"{name} is not a WAV, FLAC, Ogg or MP3 sound.", CONVERT)


def _check_ending(name: str, kind: str) -> None:
    ending = PurePath(name).suffix.lower()
    other = next((known for known, endings in KINDS.items() if ending in endings), None)
    if other and other != kind:
        raise bad_input(
            f"{name} is a {kind} sound, and its name says {ending[1:].upper()}.",
            f"Name it with {KINDS[kind][0]} if it is the one that you mean.",
        )


def _check_alone(file: BinaryIO, size: int, name: str, kind: str) -> None:
    """It must not be a document or an archive as well: readers of those look for their marks near
    the beginning (PDF 32000-1, annex H.3) or at the end (PKWARE's APPNOTE, 4.3.16)."""
    file.seek(0)
    other = "a PDF document" if b"%PDF-" in file.read(_PDF) else None
    file.seek(max(0, size - _ZIP))
    tail = file.read()
    offset = tail.rfind(b"PK\x05\x06")
    if offset >= 0 and len(tail) >= offset + 22:
        comment = int.from_bytes(tail[offset + 20 : offset + 22], "little")
        if offset + 22 + comment == len(tail):
            other = "a Zip archive"
    if other:
        raise bad_input(f"{name} is a {kind} sound and {other} at once.", CONVERT)


def _check_wav(file: BinaryIO, size: int, name: str) -> None:
    """The chunk of samples must lie within the file."""
    offset = 12
    for _ in range(_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8:
            raise truncated(name)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            if length not in _UNKNOWN_SIZE and offset + 8 + length > size:
                raise truncated(name)
            return
        offset += 8 + length + (length & 1)
    raise bad_input(f"{name} has more than {_CHUNKS} parts.", _AGAIN)


def _check_ogg(file: BinaryIO, size: int, name: str) -> None:
    """The last page must say that it is the last one."""
    file.seek(max(0, size - _TAIL), os.SEEK_SET)
    tail = file.read(_TAIL)
    offset = tail.rfind(b"OggS")
    if offset < 0 or len(tail) < offset + 27 or not tail[offset + 5] & 4:
        raise truncated(name)
    segments = tail[offset + 26]
    table = tail[offset + 27 : offset + 27 + segments]
    if len(table) < segments or offset + 27 + segments + sum(table) > len(tail):
        raise truncated(name)
