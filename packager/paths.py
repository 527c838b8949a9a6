"""Where the tool keeps what it made for itself."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from packager.errors import usage
from packager.scratch import is_ours

TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is the cache of qwen-pack: everything in it can be made again.\n"
    "# Source of the format: https://bford.info/cachedir/\n"
)
PREFIXES = "prefixes"
"""The folder of the states that warm starts keep."""
STAGE = re.compile(r"(fetch|convert|measure|quality|reference|imatrix|agent|warm)-[0-9a-z]+")
"""How the folder of a finished stage is called."""

_SUBFOLDER = "qwen-pack"
_OWN_NAMES = {
    TAG,
    "stages",
    "work",
    "logs",
    "digests",
    PREFIXES,
    "packages.json",
    "probe.json",
    "probe.log",
    "this-machine.toml",
}


def cache_dir() -> Path:
    """The cache folder: QWEN_PACK_CACHE, or the platform's own place for caches. It need not exist
    yet.

    Where QWEN_PACK_CACHE names a folder that holds somebody else's files, ours is `qwen-pack` in
    it. Raises PackError (usage) where the platform has no such place for this user.
    """
    chosen = os.environ.get("QWEN_PACK_CACHE")
    if chosen:
        from packager.files import expanded

        folder = expanded(chosen).absolute()
        return folder if _is_cache(folder) else folder / _SUBFOLDER
    from platformdirs import user_cache_path

    try:
        return user_cache_path("qwen-pack", appauthor=False)
    except RuntimeError:
        # A user of a container who stands in no list of users, without HOME.
        raise usage(
            "This user has no home folder to keep the build cache in.",
            "Name a folder with QWEN_PACK_CACHE.",
        ) from None


def made_cache_dir() -> Path:
    """`cache_dir`, made and marked as ours, so that it is known again whatever else is written
    there."""
    folder = cache_dir()
    mark(folder)
    return folder


def mark(folder: Path) -> None:
    """Make a cache folder with the mark by which it, and programs that make backups, know it."""
    # Late: files imports nothing of ours that needs a cache.
    from packager.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / TAG
    if not os.path.lexists(tag):
        with contextlib.suppress(OSError):  # a cache that may only be read serves as well
            write_atomically(tag, TAG_TEXT.encode())


def _is_cache(folder: Path) -> bool:
    """Whether a folder that the user named is ours, or free to become it."""
    try:
        names = {path.name for path in folder.iterdir() if not is_ours(path.name)}
    except OSError:
        return True  # not there yet, or refused with its own sentence where it is used
    return not names or _tagged(folder / TAG) or _unmarked_cache(folder, names)


def _tagged(tag: Path) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        # Nor is a pipe of that name waited for.
        if stat.S_ISREG(tag.lstat().st_mode):
            with tag.open("rb") as file:
                return "qwen-pack" in file.read(1000).decode()
    return False


def _unmarked_cache(folder: Path, names: set[str]) -> bool:
    """Whether it is a cache from before there were marks: finished stages, and nothing that is not
    ours."""
    if not names <= _OWN_NAMES or "stages" not in names:
        return False
    with contextlib.suppress(OSError):
        stages = list((folder / "stages").iterdir())
        return bool(stages) and all(
            STAGE.fullmatch(stage.name) and (stage / "record.json").is_file() for stage in stages
        )
    return False
