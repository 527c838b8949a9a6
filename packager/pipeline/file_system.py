"""The file system of a shared cache, behind fsspec: how it is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any

from packager.errors import PackError, unreachable, usage
from packager.files import expanded


@contextlib.contextmanager
def unless_there() -> Iterator[None]:
    """Passes over that what was to be made is there already."""
    try:
        yield
    except OSError as error:
        # A server that names no condition in its refusal is told so by s3fs.
        if not isinstance(error, FileExistsError) and error.errno != errno.EINVAL:
            raise


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
            "Install it; for a bucket of S3: pip install 'qwen-pack[s3]'.",
        ) from None
    except ValueError as error:
        raise usage(
            f"{url!r} is not a place for a shared cache: {error}.",
            "Name a folder, or a URL that fsspec knows, like s3://bucket/folder.",
        ) from None
    return system, str(root).rstrip("/")


def is_local(fs: Any) -> bool:
    """Whether it is this machine's own, or one that is mounted here."""
    kinds = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return "file" in kinds or "local" in kinds


def written(row: Mapping[str, Any]) -> float:
    """When something was written, in seconds since 1970; 0 where the store does not tell."""
    value = row.get("mtime", row.get("LastModified", row.get("created", 0.0)))
    return float(value.timestamp() if hasattr(value, "timestamp") else value)
