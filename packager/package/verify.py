"""Compare a package with its manifest, byte by byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packager.errors import PackError
from packager.files import hashing, sha256
from packager.package import manifest
from packager.scratch import is_ours

Found = Literal[
    "changed", "missing", "additional", "renamed", "link", "special", "mode", "signature", "version"
]
Kind = Found | Literal["source", "recipe", "rebuilt", "toolchain"]
"""What a comparison with the manifest finds, and what a rebuild does."""


_LEFT_BY_SYSTEMS = {".ds_store", ".localized", "icon\r", "thumbs.db", "ehthumbs.db"}
_LEFT_BY_SYSTEMS |= {"desktop.ini", ".directory"}
"""Files of macOS' Finder, Windows' Explorer and KDE's Dolphin, in small letters."""
_APPLE_DOUBLE = "._"
"""Begins the file that macOS puts beside each other one on disks of other systems."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a package is not what its manifest says."""

    path: str
    kind: Kind
    message: str

    @property
    def harmless(self) -> bool:
        """Whether a file manager left it where somebody looked: no engine reads it, nothing runs
        it."""
        name = self.path.rpartition("/")[2]
        left = name.startswith(_APPLE_DOUBLE) or name.lower() in _LEFT_BY_SYSTEMS
        return self.kind == "additional" and left

    def as_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)


def verify_names(package: Path) -> list[Finding]:
    """What stands in the folder and should not, and what should and does not, by name alone; no
    file is read.

    Raises PackError (exit code 6) when the manifest itself cannot be trusted.
    """
    return _names(package, manifest.read(package).files)


def strangers(folder: Path) -> list[str]:
    """What stands in a folder that qwen-pack did not make: everything where it is no package, else
    what its manifest does not name."""
    try:
        odd = [
            finding.path
            for finding in verify_names(folder)
            if finding.kind in ("additional", "link", "special") and not finding.harmless
        ]
        return [path for path in odd if not is_ours(path)]
    except PackError:
        return sorted(path.name for path in folder.iterdir())


def verify(package: Path, on_bytes: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Every difference between the folder and its manifest, by path; empty when there is none.

    `on_bytes(done, total)` hears of the hashing. Raises PackError (exit code 6) when the manifest
    itself cannot be trusted.
    """
    work = verifying(package)
    while True:
        try:
            done, total = next(work)
        except StopIteration as stop:
            findings: list[Finding] = stop.value
            return findings
        if on_bytes:
            on_bytes(done, total)


def verifying(package: Path) -> Generator[tuple[int, int], None, list[Finding]]:
    """`verify` as a generator of (bytes done, bytes in all)."""
    files = manifest.read(package).files
    findings = _names(package, files)
    bad = {finding.path for finding in findings}
    total = sum(entry.size for entry in files)
    done = 0
    for entry in files:
        if entry.path in bad:
            continue
        size = (package / entry.path).stat().st_size
        if size != entry.size:
            findings.append(
                Finding(entry.path, "changed", f"has {size} bytes instead of {entry.size}")
            )
            continue
        work = hashing(package / entry.path, follow=False)
        while True:
            try:
                done += next(work)
            except StopIteration as stop:
                if stop.value != entry.sha256:
                    findings.append(
                        Finding(entry.path, "changed", "has another sha256 than the manifest says")
                    )
                break
            yield done, total
    return sorted(_with_renames(package, findings, files), key=lambda finding: finding.path)


def _names(package: Path, files: tuple[manifest.FileEntry, ...]) -> list[Finding]:
    known = {entry.path for entry in files}
    folders = {parent for path in known for parent in _parents(path)}
    findings = []
    present = set()
    for path, status in _walk(package):
        present.add(path)
        if stat.S_ISLNK(status.st_mode):
            findings.append(Finding(path, "link", "is a link; a package holds files only"))
        elif path == manifest.NAME:
            continue
        elif stat.S_ISDIR(status.st_mode):
            if path in known:
                findings.append(
                    Finding(path, "special", "is a folder, where the manifest has a file")
                )
            elif path not in folders:
                findings.append(
                    Finding(path, "additional", "is a folder that no file of the manifest needs")
                )
        elif not stat.S_ISREG(status.st_mode):
            findings.append(Finding(path, "special", "is neither a file nor a folder"))
        elif path not in known:
            findings.append(Finding(path, "additional", "is not in the manifest"))
    findings += [Finding(path, "missing", "is not there") for path in known - present]
    return sorted(findings, key=lambda finding: finding.path)


def _with_renames(
    package: Path, findings: list[Finding], files: tuple[manifest.FileEntry, ...]
) -> list[Finding]:
    """Say "renamed" once where a missing file's bytes stand under a name that is not in the
    manifest."""
    missing = {finding.path for finding in findings if finding.kind == "missing"}
    lost = {(entry.size, entry.sha256): entry.path for entry in files if entry.path in missing}
    sizes = {size for size, _ in lost}
    moved: dict[str, str] = {}
    for finding in findings:
        file = package / finding.path
        if finding.kind == "additional" and file.is_file() and file.stat().st_size in sizes:
            old = lost.pop((file.stat().st_size, sha256(file)), None)
            if old is not None:
                moved[old] = finding.path
    rest = [
        finding
        for finding in findings
        if finding.path not in moved and finding.path not in moved.values()
    ]
    return rest + [Finding(old, "renamed", f"is now called {new}") for old, new in moved.items()]


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
