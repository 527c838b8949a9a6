"""Failures a person can act on: one sentence, a way on, an exit code."""

from __future__ import annotations

import errno
import os
from enum import IntEnum

MESSAGE_CHARACTERS = 10_000
"""What of a message is kept."""


class ExitCode(IntEnum):
    """What the shell sees. Scripts rely on these numbers."""

    DONE = 0
    BUG = 1
    USAGE = 2
    NOTHING_FITS = 3
    BUDGET = 4
    SOURCE = 5
    INPUT = 6
    RESOURCE = 7
    INTERRUPTED = 130


class PackError(Exception):
    """A failure that is not a bug: `message` says what happened, `hint` the way on."""

    def __init__(self, message: str, hint: str = "", exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        # What is quoted may be as large as what came from outside.
        self.message = message[:MESSAGE_CHARACTERS]
        self.hint = hint
        self.exit_code = ExitCode(exit_code)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class NotHere(PackError):
    """What an artifact is made for (a GPU, its driver, the engine for it) is not on this machine.
    It is as good as it was."""


def usage(message: str, hint: str = "") -> PackError:
    """The caller asked for something that does not exist or cannot be (exit code 2)."""
    return PackError(message, hint, ExitCode.USAGE)


def unreachable(message: str, hint: str = "") -> PackError:
    """A source did not answer, or does not let us in (exit code 5)."""
    return PackError(message, hint, ExitCode.SOURCE)


def bad_input(message: str, hint: str = "") -> PackError:
    """A file is corrupt, unsafe or not what it claims to be (exit code 6)."""
    return PackError(message, hint, ExitCode.INPUT)


def no_room(message: str, hint: str = "") -> PackError:
    """Disk or memory does not suffice (exit code 7)."""
    return PackError(message, hint, ExitCode.RESOURCE)


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOLCK}
_BROKEN = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV, errno.ENOTCONN}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
"""A new name that is there already: looked for before the work, and found taken at its end."""
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def from_foreign(error: BaseException) -> PackError | None:
    """The sentence for an exception of the system; None when it is a bug of ours."""
    if isinstance(error, PackError):
        return error
    if isinstance(error, MemoryError):
        return no_room("Memory ran out.", "Close other programs or choose a smaller variant.")
    if isinstance(error, OSError):
        where = f" {error.filename!r}" if error.filename else ""
        if error.errno in _DISK_FULL:
            return no_room(
                f"The disk is full{where and ', writing' + where}.",
                "Free some space, or choose another place with --out or QWEN_PACK_CACHE.",
            )
        if error.errno in _LIMITS:
            return no_room(
                f"The system refuses{where}: {error.strerror}.",
                "Close other programs, or raise the limits of this shell (ulimit -a).",
            )
        if error.errno in _BROKEN:
            return no_room(
                f"The disk or the terminal does not answer{where}: {error.strerror}.",
                "Look at the disk, and try again.",
            )
        if error.errno in _NOT_WRITABLE:
            return usage(
                f"No permission to write or read{where}.",
                "Choose another folder with --out or QWEN_PACK_CACHE.",
            )
        if error.errno in _TAKEN and error.filename2:
            return usage(
                f"Another program has written {str(error.filename2)!r} meanwhile, and nothing is "
                "replaced.",
                "Choose another place with --out, or remove it.",
            )
        if error.errno == errno.ENAMETOOLONG:
            return usage(f"The name{where} is too long for this disk.", "Choose a shorter one.")
        if error.errno == errno.ELOOP:
            return _loop(where)
        if error.errno == errno.EISDIR and error.filename:
            return usage(f"{str(error.filename)!r} is a folder, not a file.", "Name a file in it.")
        if error.errno == errno.ENOENT and error.filename:
            return usage(f"There is no file or folder{where}.", "Check the path.")
        # Not pathlib, for every command starts with this module: it takes three milliseconds.
        in_the_way = error.errno == errno.EEXIST and not os.path.isdir(error.filename or "/")  # noqa: PTH112
        if in_the_way or (error.errno == errno.ENOTDIR and error.filename):
            return usage(
                f"A part of the path{where} is a file, not a folder.", "Choose another folder."
            )
    # What pathlib makes of the error of the system before Python 3.13.
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from "):
        return _loop(str(error).removeprefix("Symlink loop from"))
    return None


def _loop(where: str) -> PackError:
    return usage(f"The path{where} contains a loop of links.", "Name the folder itself.")
