"""The state behind a fixed prefix, in a file of llama.cpp's own format.

llama.cpp reads a state as its own memory, and its reader ends the process for a damaged file. So
one is opened only where nobody but this user can have written it, and only with the digest that is
in its name.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from packager.scratch import scratch_file

_MOST_KEPT = 8
"""States in a folder at most: each is as large as the cache of its tokens."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class StoredPrefix:
    """Tokens and the file that their state is kept in; see packager.measure.prefix.KeepsPrefix."""

    def __init__(self, lib: Any, context: Any, ids: Sequence[int], file: Path) -> None:
        self._lib, self._context = lib, context
        self._folder, self._name, self._ending = file.parent, file.stem, file.suffix
        self.ids = list(ids)

    def begins(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt begins with the tokens, where there are any, and goes on: the last one
        of a prompt has to be computed."""
        return 0 < len(self.ids) < len(prompt) and list(prompt[: len(self.ids)]) == self.ids

    def restore(self) -> str | None:
        """Put the state into the empty context; else say why it is computed, as the end of a
        sentence."""
        file = next(iter(self._files()), None)
        if file is None:
            return "there is no state for this engine and processor yet"
        why = _not_ours(file) or _damaged(file)
        if why is not None:
            return why
        tokens = (ctypes.c_int32 * len(self.ids))()
        count = ctypes.c_size_t(0)
        read = self._lib.llama_state_seq_load_file(
            self._context,
            os.fsencode(file),
            0,
            tokens,
            len(self.ids),
            ctypes.byref(count),
        )
        if not read:
            return "its state cannot be read"
        if list(tokens[: count.value]) != self.ids:
            return "its state is of other tokens"
        return None

    def save(self) -> bool:
        """Keep the state of the context, which holds the tokens and nothing else; False where there
        is no place for it, which is no error: it is computed again."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with scratch_file(self._folder) as (path, _):
                tokens = (ctypes.c_int32 * len(self.ids))(*self.ids)
                written = self._lib.llama_state_seq_save_file(
                    self._context, os.fsencode(path), 0, tokens, len(self.ids)
                )
                if not written:
                    return False
                path.chmod(0o600)
                for old in self._files():
                    old.unlink()
                path.replace(self._folder / f"{self._name}-{_digest(path)}{self._ending}")
            _forget_oldest(self._folder, self._ending)
            return True
        return False

    def _files(self) -> list[Path]:
        """The states of these tokens; one, unless two processes wrote at once."""
        return sorted(self._folder.glob(f"{self._name}-*{self._ending}"))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _damaged(file: Path) -> str | None:
    """Why the bytes are not those that were written; None where they are."""
    try:
        same = file.stem.rpartition("-")[2] == _digest(file)
    except OSError:
        return "its state cannot be read"
    return None if same else "its state is damaged"


def _not_ours(file: Path) -> str | None:
    """Why a state file is not opened; None for one that only this user can have written."""
    try:
        parts = (file.lstat(), file.parent.lstat())
    except OSError:
        return "its state cannot be read"
    if not stat.S_ISREG(parts[0].st_mode) or not stat.S_ISDIR(parts[1].st_mode):
        return "its state is not a plain file"
    if hasattr(os, "getuid") and any(
        status.st_uid != os.getuid() or status.st_mode & _OTHERS_WRITE for status in parts
    ):
        return "others may have written its state"
    return None


def _forget_oldest(folder: Path, ending: str) -> None:
    states = sorted(folder.glob(f"*{ending}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in states[_MOST_KEPT:]:
        path.unlink(missing_ok=True)
