"""Where the tool keeps what it made for itself."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: QWEN_PACK_CACHE, or the platform's own place for caches. It need not exist yet."""
    chosen = os.environ.get("QWEN_PACK_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("qwen-pack", appauthor=False)
