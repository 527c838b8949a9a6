"""Files that are programs or pickles, by their names and by their first and last bytes, whatever
they are called."""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import warnings
from pathlib import PurePosixPath
from typing import IO

from packager.inspection.unsafe import Unsafe

_ENDINGS = {
    "a library": ("a", "dll", "dylib", "ko", "lib", "node", "o", "ocx", "pyd", "so", "sys", "wasm"),
    "a program": (
        "app",
        "bat",
        "cmd",
        "com",
        "exe",
        "jar",
        "class",
        "dex",
        "js",
        "lua",
        "mjs",
        "msi",
        "ps1",
        "scr",
        "sh",
        "vbs",
    ),
    "Python code": ("egg", "pth", "py", "pyc", "pyi", "pyo", "pyw", "pyx", "pyz", "whl"),
    "a pickle": ("ckpt", "dill", "joblib", "npy", "npz", "pickle", "pkl", "pt", "pt2", "pte"),
    "a compiled model": (
        "blob",
        "dlc",
        "engine",
        "h5",
        "hef",
        "keras",
        "mlmodelc",
        "ort",
        "plan",
        "tflite",
        "trt",
    ),
}
_BY_ENDING = {ending: what for what, endings in _ENDINGS.items() for ending in endings}
_NUMBERED_LIBRARY = re.compile(r"\.so(\.[0-9]+)+$")

_MAGIC = {
    b"\x7fELF": "a library or program (ELF)",
    b"\xfe\xed\xfa\xce": "a library or program (Mach-O)",
    b"\xfe\xed\xfa\xcf": "a library or program (Mach-O)",
    b"\xce\xfa\xed\xfe": "a library or program (Mach-O)",
    b"\xcf\xfa\xed\xfe": "a library or program (Mach-O)",
    b"\xca\xfe\xba\xbe": "a library or program (Mach-O or Java)",
    b"\xca\xfe\xba\xbf": "a library or program (Mach-O)",
    b"\xbe\xba\xfe\xca": "a library or program (Mach-O)",
    b"\0asm": "a program (WebAssembly)",
    b"BC\xc0\xde": "a program (LLVM bitcode)",
    b"dex\n": "a program (Dalvik)",
    b"!<ar": "a library (ar)",
    b"nsgg": "a saved state, which llama.cpp reads as its own memory",
    b"qsgg": "a saved state, which llama.cpp reads as its own memory",
    b"PK\x03\x04": "a zip, as pickled weights are",
    b"PK\x05\x06": "a zip, as pickled weights are",
}
_SCRIPT = re.compile(rb"#![ \t]*/[\x20-\x7e]{1,200}\r?\n")
_TAIL = 22 + 0xFFFF  # the end record of a zip with the longest comment
_PICKLE_HEAD = 1 << 18
_CALLS = frozenset(
    {
        "GLOBAL",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "REDUCE",
        "EXT1",
        "EXT2",
        "EXT4",
    }
)
_ENOUGH_OPCODES = 8


def refuse_name(path: str) -> None:
    """Raise Unsafe for the name of a library, a program, Python code, a pickle or a compiled
    model."""
    name = PurePosixPath(path).name.casefold().rstrip(" .")
    if _NUMBERED_LIBRARY.search(name):
        raise Unsafe("is a library by its name")
    what = _BY_ENDING.get(name.rpartition(".")[2]) if "." in name else None
    if what:
        raise Unsafe(f"is {what} by its name")


def refuse_bytes(file: IO[bytes], size: int) -> None:
    """Raise Unsafe for a file that begins as a library, a program, a script or a pickle does, or
    ends as a zip does."""
    head = file.read(_PICKLE_HEAD)
    what = _MAGIC.get(head[:4]) or _portable_executable(head)
    if what:
        raise Unsafe(f"is {what}")
    if _SCRIPT.match(head):
        raise Unsafe("is a script: it begins with #!")
    if _is_pickle(head):
        raise Unsafe("is a pickle")
    if _ends_as_zip(file, size):
        raise Unsafe("is a zip, as pickled weights are")


def _portable_executable(head: bytes) -> str | None:
    if head[:2] == b"MZ" and len(head) >= 64:
        offset = int.from_bytes(head[60:64], "little")
        if head[offset : offset + 4] == b"PE\0\0":
            return "a library or program (PE)"
    return None


def _is_pickle(head: bytes) -> bool:
    """Whether the bytes are read as a pickle is. Two equal bytes alone are what raw weights may
    begin with."""
    protocol = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if protocol and head[2:3] == b"\x95":
        return True
    seen = 0
    calls = False
    # Its parser raises, and warns of, whatever the bytes provoke. A pickle that is cut off runs no
    # code either.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        for opcode, _, _ in pickletools.genops(io.BytesIO(head)):
            seen += 1
            calls = calls or opcode.name in _CALLS
            if opcode.name == "STOP":
                return protocol or calls
            if protocol and seen >= _ENOUGH_OPCODES:
                return True
    return False


def _ends_as_zip(file: IO[bytes], size: int) -> bool:
    """Readers of zips look for the list of files at the end, whatever stands in front."""
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    offset = tail.rfind(b"PK\x05\x06")
    if offset < 0 or len(tail) - offset < 22:
        return False
    length = int.from_bytes(tail[offset + 12 : offset + 16], "little")
    comment = int.from_bytes(tail[offset + 20 : offset + 22], "little")
    return offset + 22 + comment <= len(tail) and length <= size
