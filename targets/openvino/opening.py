"""Opening files with the engine, whose own errors carry its source's lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packager.errors import bad_input


@contextmanager
def opening(artifact: Path) -> Iterator[None]:
    """Within the block an error of the engine's becomes one sentence. Raises PackError (bad
    input)."""
    try:
        yield
    except RuntimeError as error:
        lines = [
            line.strip() for line in str(error).splitlines() if line.strip() and "src/" not in line
        ]
        last = lines[-1][:300].rstrip(".") if lines else "no reason given"
        raise bad_input(
            f"OpenVINO cannot load {artifact}: {last}.",
            "`qwen-pack verify` finds damaged files; or build it again.",
        ) from error
