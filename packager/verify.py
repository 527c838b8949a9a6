"""Compare a package with its manifest, byte by byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packager import manifest
from packager.files import sha256

Kind = Literal["changed", "missing", "additional", "renamed", "link", "special"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a package is not what its manifest says."""

    path: str
    kind: Kind
    message: str

    def as_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)


def verify(package: Path, on_bytes: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Every difference between the folder and its manifest, by path; empty when there is none.

    `on_bytes(done, total)` hears of the hashing. Raises PackError (exit code 6) when the manifest itself cannot be trusted.
    """
    entries = {entry.path: entry for entry in manifest.read(package).files}
    findings: list[Finding] = []
    present: set[str] = set()
    for path, status in _walk(package):
        if path == manifest.NAME:
            continue
        present.add(path)
        if stat.S_ISLNK(status.st_mode):
            findings.append(Finding(path, "link", "is a link; a package holds files only"))
        elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            findings.append(Finding(path, "special", "is neither a file nor a folder"))
    bad = {finding.path for finding in findings}
    folders = {parent for path in entries for parent in _parents(path)}
    missing = [path for path in entries if path not in present]
    additional = [path for path in sorted(present - entries.keys() - folders) if path not in bad]
    total = sum(entry.size for entry in entries.values())
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_bytes:
            on_bytes(done, total)

    for path, entry in entries.items():
        if path in missing or path in bad:
            continue
        file = package / path
        size = file.lstat().st_size
        if not file.is_file():
            findings.append(Finding(path, "special", "is not a regular file"))
        elif size != entry.size:
            findings.append(Finding(path, "changed", f"has {size} bytes instead of {entry.size}"))
        elif sha256(file, count) != entry.sha256:
            findings.append(Finding(path, "changed", "has another sha256 than the manifest says"))
    moved = _renamed(package, missing, additional, {entry.path: (entry.size, entry.sha256) for entry in entries.values()})
    findings += [Finding(old, "renamed", f"is now called {new}") for old, new in moved.items()]
    findings += [Finding(path, "missing", "is not there") for path in missing if path not in moved]
    findings += [Finding(path, "additional", "is not in the manifest") for path in additional if path not in moved.values()]
    return sorted(findings, key=lambda finding: finding.path)


def _renamed(package: Path, missing: list[str], additional: list[str], known: dict[str, tuple[int, str]]) -> dict[str, str]:
    """Missing files whose bytes stand under a name that is not in the manifest."""
    moved: dict[str, str] = {}
    for path in additional:
        file = package / path
        if not file.is_file():
            continue
        candidates = [old for old in missing if old not in moved and known[old][0] == file.stat().st_size]
        digest = sha256(file) if candidates else ""
        for old in candidates:
            if known[old][1] == digest:
                moved[old] = path
                break
    return moved


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _walk(package: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below the package with its own status, links not followed."""
    pending = [package]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                yield Path(entry.path).relative_to(package).as_posix(), status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(Path(entry.path))
