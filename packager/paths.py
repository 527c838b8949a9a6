"""Where the tool keeps what it made for itself."""

from __future__ import annotations

import os
from pathlib import Path

from packager.errors import usage


def cache_dir() -> Path:
    """The cache folder: QWEN_PACK_CACHE, or the platform's own place for caches. It need not exist
    yet.

    Raises PackError (usage) where the platform has no such place for this user.
    """
    chosen = os.environ.get("QWEN_PACK_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    try:
        return user_cache_path("qwen-pack", appauthor=False)
    except RuntimeError:
        # A user of a container who stands in no list of users, without HOME.
        raise usage(
            "This user has no home folder to keep the build cache in.",
            "Name a folder with QWEN_PACK_CACHE.",
        ) from None
