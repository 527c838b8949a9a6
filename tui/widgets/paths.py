"""Paths are completed while they are typed, as in a shell: → takes the completion."""

from __future__ import annotations

import asyncio
from itertools import islice

from textual.suggester import Suggester

from packager.files import expanded

_MOST = 2000
"""Entries of a folder that are looked at: a folder of photographs must not hold up a key."""


class PathSuggester(Suggester):
    """The first entry whose name begins with what was typed; folders end in a slash. Only folders
    with `folders`."""

    def __init__(self, folders: bool = False) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._folders = folders

    async def get_suggestion(self, value: str) -> str | None:
        """The whole path, None where nothing begins so, or where no path was begun."""
        if "/" not in value:
            return None
        return await asyncio.to_thread(self._completed, value)

    def _completed(self, value: str) -> str | None:
        folder, _, begun = value.rpartition("/")
        if not begun:
            return None
        try:
            entries = islice(expanded(f"{folder}/").iterdir(), _MOST)
            fitting = sorted(
                path
                for path in entries
                if path.name.startswith(begun) and (path.is_dir() or not self._folders)
            )
        except (OSError, RuntimeError):
            # A folder that cannot be read, or a home that is nobody's.
            return None
        if not fitting:
            return None
        return f"{folder}/{fitting[0].name}{'/' if fitting[0].is_dir() else ''}"
