"""What a picture's file says of itself before anything is decoded: its kind, its size in pixels,
how many frames, and whether it ends where it says.

PNG (W3C PNG third edition), JPEG (ITU-T T.81, Annex B) and WebP (RFC 9649) are read; nothing is
decoded here. All functions raise PackError (exit code 6) with a sentence that begins with the
picture's name.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import PurePath

from packager import limits
from packager.errors import PackError, bad_input

KINDS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WebP": (".webp",)}
"""The kinds that are read, each with the endings of its files."""

CONVERT = "Save it as PNG, JPEG or WebP."
_AGAIN = "Get the picture again, or save it again with an image editor."

_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a GIF picture", re.compile(rb"GIF8[79]a")),
    ("a BMP picture", re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL)),
    ("a TIFF picture", re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+")),
    ("a HEIC or AVIF picture", re.compile(rb".{4}ftyp(?:hei|hev|mif|msf|avi)", re.DOTALL)),
    ("a JPEG XL picture", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("a JPEG 2000 picture", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("a video", re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3", re.DOTALL)),
    ("a PDF document", re.compile(rb"%PDF-")),
    ("a Zip archive", re.compile(rb"PK\x03\x04|PK\x05\x06")),
    ("a program", re.compile(rb"\x7fELF|MZ.{58}|#!/", re.DOTALL)),
)
"""What else a file may be, in the order in which it is asked; text in angle brackets besides."""

_OTHER_ENDINGS = re.compile(
    r"\.(gif|bmp|tiff?|hei[cf]|avif|svg|jxl|jp2|pdf|ico|psd|raw|dng|zip|html?|txt|exe)"
)
"""Endings of files that are no pictures of the kinds that are read. Others say nothing."""

_HEAD = 8192

_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_ZIP_END = b"PK\x05\x06"
_ZIP_TAIL = 66_000


@dataclass(frozen=True, slots=True)
class Container:
    """A picture before it is decoded: its kind, one of KINDS, and its size in pixels. `frames` is
    more than one where it moves."""

    kind: str
    width: int
    height: int
    frames: int = 1


def read(data: bytes, name: str) -> Container:
    """What the file says of itself, checked: kind, size, frames, and that nothing is missing or
    stands behind its end."""
    kind = _kind(data, name)
    container = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp}[kind](data, name)
    _check_ending(name, kind)
    _check_size(container, name)
    return container


def _kind(data: bytes, name: str) -> str:
    if not data:
        raise bad_input(f"{name} is empty.", _AGAIN)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    other = _other(data)
    if other:
        raise bad_input(f"{name} is {other}; PNG, JPEG and WebP are read.", CONVERT)
    raise bad_input(f"{name} is not a PNG, JPEG or WebP picture.", CONVERT)


def _other(data: bytes) -> str | None:
    """What the beginning of some data says that it is; None where it says nothing known."""
    head = data[:_HEAD]
    known = next((what for what, pattern in _OTHERS if pattern.match(head)), None)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if known or not text.startswith(b"<"):
        return known
    return "an SVG picture" if b"<svg" in text else "a web page or other text"


def _check_ending(name: str, kind: str) -> None:
    """A name that promises another kind of file is a mistake, or somebody's trick."""
    ending = PurePath(name).suffix.lower()
    other = next((known for known, endings in KINDS.items() if ending in endings), None)
    if (other and other != kind) or _OTHER_ENDINGS.fullmatch(ending):
        raise bad_input(
            f"{name} is a {kind} picture, and its name says {ending[1:].upper()}.",
            f"Name it with {KINDS[kind][0]} if it is the one that you mean.",
        )


def _check_size(found: Container, name: str) -> None:
    width, height = found.width, found.height
    shown = f"{name} has {width} x {height} pixels"
    if min(width, height) < limits.PICTURE_LEAST_SIDE:
        raise bad_input(
            f"{shown}; a model sees nothing in less than {limits.PICTURE_LEAST_SIDE} a side.",
            "Take a larger picture.",
        )
    if max(width, height) > limits.PICTURE_SIDE:
        raise bad_input(f"{shown}, more than {limits.PICTURE_SIDE} a side.", "Make it smaller.")
    if width * height > limits.PICTURE_PIXELS:
        raise bad_input(
            f"{shown}, more than {limits.PICTURE_PIXELS / 1e6:.0f} million.", "Make it smaller."
        )
    if max(width, height) > limits.PICTURE_RATIO * min(width, height):
        raise bad_input(
            f"{shown}; no model takes one side more than {limits.PICTURE_RATIO} times the other.",
            "Cut it into pieces.",
        )
    if found.frames > limits.PICTURE_FRAMES:
        raise bad_input(
            f"{name} has {found.frames} frames, more than {limits.PICTURE_FRAMES}.",
            "Save its first frame as a picture.",
        )


def _truncated(name: str) -> PackError:
    return bad_input(f"{name} is truncated: it ends before its picture does.", _AGAIN)


def _more_after(name: str, kind: str, rest: bytes) -> PackError:
    what = _other(rest)
    shown = f"{what} follows" if what else f"{len(rest)} bytes follow"
    return bad_input(f"{name} is more than a {kind} picture: {shown} its end.", _AGAIN)


def _png(data: bytes, name: str) -> Container:
    """Chunks of a length, a kind, the data and a sum of 4 bytes, from IHDR to IEND."""
    offset, size, frames = 8, (0, 0), 1
    for number in range(limits.PICTURE_CHUNKS):
        if offset + 12 > len(data):
            raise _truncated(name)
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if (number == 0) != (kind == b"IHDR") or (number == 0 and length != 13):
            raise bad_input(f"{name} is a PNG picture without a valid header.", _AGAIN)
        if end > len(data):
            raise _truncated(name)
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data, offset + 8)
        elif kind == b"acTL" and length >= 8:
            frames = struct.unpack_from(">I", data, offset + 8)[0]
        elif kind == b"IEND":
            if data[end:].strip(b"\0"):
                raise _more_after(name, "PNG", data[end:])
            return Container("PNG", *size, max(1, frames))
        offset = end
    raise bad_input(f"{name} has more than {limits.PICTURE_CHUNKS} parts.", _AGAIN)


def _jpeg(data: bytes, name: str) -> Container:
    """Segments of a marker and a length, and behind each start of a scan the data up to the next
    marker."""
    offset, size, scans = 2, None, 0
    for _ in range(limits.PICTURE_CHUNKS):
        matched = _MARKER.match(data, offset)
        if matched is None:
            if offset + 2 >= len(data):
                raise _truncated(name)
            raise bad_input(f"{name} is a JPEG picture with bytes between its parts.", _AGAIN)
        marker, offset = matched[1][0], matched.end()
        if marker == 0xD9:
            return _ended(data, name, offset, size)
        if marker in _ALONE:
            continue
        if offset + 2 > len(data):
            raise _truncated(name)
        (length,) = struct.unpack_from(">H", data, offset)
        if length < 2:
            raise bad_input(f"{name} is a JPEG picture with a part of no length.", _AGAIN)
        if offset + length > len(data):
            raise _truncated(name)
        if marker in _FRAME_HEADERS:
            size = _frame(data, name, offset, length, size)
        offset += length
        if marker == 0xDA:
            scans += 1
            if scans > limits.PICTURE_SCANS:
                raise bad_input(f"{name} has more than {limits.PICTURE_SCANS} scans.", _AGAIN)
            following = _MARKER.search(data, offset)
            if following is None:
                raise _truncated(name)
            offset = following.start()
    raise bad_input(f"{name} has more than {limits.PICTURE_CHUNKS} parts.", _AGAIN)


def _frame(
    data: bytes, name: str, place: int, length: int, before: tuple[int, int] | None
) -> tuple[int, int]:
    """Width and height in the header of a frame; there is one of them."""
    if before is not None or length < 8:
        raise bad_input(f"{name} is a JPEG picture without one valid header.", _AGAIN)
    bits, height, width = struct.unpack_from(">BHH", data, place + 2)
    if bits != 8 or not height or not width:
        raise bad_input(
            f"{name} is a JPEG picture of an unsupported kind ({bits} bits a channel, "
            f"{width} x {height} pixels in its header).",
            CONVERT,
        )
    return width, height


def _ended(data: bytes, name: str, end: int, size: tuple[int, int] | None) -> Container:
    """A JPEG behind whose end only what cameras put there may stand: further pictures, their
    videos, maker's notes. The decoder reads none of it."""
    if size is None:
        raise bad_input(f"{name} is a JPEG picture without one valid header.", _AGAIN)
    rest = data[end:].lstrip(b"\0")
    harmless = not rest or rest.startswith(b"\xff\xd8\xff") or rest[4:8] == b"ftyp"
    if not harmless and (_other(rest) or _ZIP_END in rest[-_ZIP_TAIL:]):
        raise _more_after(name, "JPEG", rest)
    return Container("JPEG", *size)


def _webp(data: bytes, name: str) -> Container:
    """A RIFF of chunks: the first says how large the canvas is, ANMF is a frame each."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise _truncated(name)
    if data[end:].strip(b"\0"):
        raise _more_after(name, "WebP", data[end:])
    offset, size, frames = 12, None, 0
    for number in range(limits.PICTURE_CHUNKS):
        if offset >= end:
            break
        kind, body = data[offset : offset + 4], offset + 8
        length = int.from_bytes(data[offset + 4 : body], "little")
        if body + length > end:
            raise _truncated(name)
        if number == 0:
            size = _canvas(kind, data[body : body + min(length, 10)])
        frames += kind == b"ANMF"
        offset = body + length + (length & 1)
    else:
        raise bad_input(f"{name} has more than {limits.PICTURE_CHUNKS} parts.", _AGAIN)
    if size is None:
        raise bad_input(f"{name} is a WebP picture without a valid header.", _AGAIN)
    return Container("WebP", *size, max(1, frames))


def _canvas(kind: bytes, head: bytes) -> tuple[int, int] | None:
    """Width and height in the first chunk; None where it has none."""
    if kind == b"VP8X" and len(head) == 10:
        return (
            1 + int.from_bytes(head[4:7], "little"),
            1 + int.from_bytes(head[7:10], "little"),
        )
    if kind == b"VP8L" and len(head) >= 5 and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(head) == 10 and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None
