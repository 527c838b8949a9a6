"""Where a shared cache is: the file system behind a URL, opened by fsspec, and its errors as
sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from packager.errors import PackError, unreachable, usage
from packager.files import expanded


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """A store that does not answer is a sentence."""
    try:
        yield
    except (PackError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        # Every kind of store has its own errors.
        raise unreachable(
            f"The shared cache {url} does not answer: {type(error).__name__}: {error}.",
            "Check --cache, and the rights there; without it the local cache is used alone.",
        ) from None


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Raises PackError (usage) for one that cannot
    be."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise usage("--cache needs fsspec.", "Install it: pip install fsspec") from None
    location = url if "://" in url else str(expanded(url).absolute())
    try:
        system, root = url_to_fs(location)
    except ImportError as error:
        raise usage(
            f"The shared cache {url} needs a package that is not installed: {error}",
            "Install it, e.g. pip install s3fs.",
        ) from None
    except ValueError as error:
        raise usage(
            f"{url!r} is not a place for a shared cache: {error}.",
            "Name a folder, or a URL that fsspec knows, like s3://bucket/folder.",
        ) from None
    return system, str(root).rstrip("/")


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine."""
    kinds = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return "file" in kinds or "local" in kinds


def written(row: Mapping[str, Any]) -> float:
    """When something was written, in seconds since 1970; 0 where the store does not say."""
    value = row.get("mtime", row.get("LastModified", row.get("created", 0.0)))
    return float(value.timestamp() if hasattr(value, "timestamp") else value)
