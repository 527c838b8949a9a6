"""A package on its way out: checked before anything is written, every byte compared with the
manifest as it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.catalog.licences import refusal
from packager.errors import PackError, bad_input, usage
from packager.files import permitted
from packager.inspection import refuse_unsafe
from packager.package import manifest
from packager.package.manifest import PROJECTOR, FileEntry, Manifest
from packager.package.verify import verify_names
from packager.scratch import flush_tree, place, remove_abandoned, scratch_folder

CHUNK = 1 << 20


@dataclass(frozen=True)
class Shipment:
    """A package whose names are right; its bytes are compared as they are read. `files` starts with
    the manifest itself."""

    path: Path
    manifest: Manifest
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """The package's own name."""
        return self.manifest.name

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def projector(self) -> FileEntry | None:
        """The file of the vision tower; None for text alone."""
        return next((entry for entry in self.files if entry.role == PROJECTOR), None)

    def model_files(self) -> list[FileEntry]:
        """The files that the engine loads, the first shard first."""
        return [entry for entry in self.files if entry.path.startswith("model/")]

    def chunks(self, entry: FileEntry) -> Iterator[bytes]:
        """The bytes of one file in pieces. Raises PackError (exit code 6) at the end when they are
        not what the manifest says."""
        digest = hashlib.sha256()
        left = entry.size
        with (self.path / entry.path).open("rb", buffering=0) as file:
            while left and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
            longer = file.read(1)
        if left or longer or digest.hexdigest() != entry.sha256:
            raise bad_input(
                f"{self.path / entry.path} is not what the manifest says: nothing was exported.",
                "`qwen-pack verify` names every difference; build or get the package again.",
            )

    def read(self, path: str) -> bytes:
        """One small file whole, compared with the manifest."""
        return b"".join(self.chunks(self.entry(path)))

    def entry(self, path: str) -> FileEntry:
        """The row of a file. Raises KeyError for a path that the manifest does not name."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise KeyError(path)


def prepare(
    package: Path, *, allow_dummy: bool = False, accepted: Collection[str] = ()
) -> Shipment:
    """The package at `package`, when it may leave the house.

    Raises PackError: exit code 6 for a folder whose files are not those of its manifest, or not
    safe to open; 2 for random weights, unless allowed, and for a licence that asks for agreement
    and is not among `accepted`.
    """
    known = manifest.read(package)
    findings = verify_names(package)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise bad_input(
            f"{package} is not what its manifest says: {findings[0].path} "
            f"{findings[0].message}{more}.",
            "`qwen-pack verify` names every difference; build or get the package again.",
        )
    refuse_unsafe(package, known)
    problem = _dummy(known, allow_dummy) or refusal(known.contents.variant.license, accepted)
    if problem:
        raise problem
    own = (package / manifest.NAME).read_bytes()
    # What was checked is what is shipped, also when somebody writes into the folder meanwhile.
    if manifest.parse(own, str(package / manifest.NAME)).data != known.data:
        raise bad_input(
            f"{package / manifest.NAME} changed while it was read.",
            "Try again when nothing else writes there.",
        )
    first = FileEntry(manifest.NAME, len(own), hashlib.sha256(own).hexdigest())
    return Shipment(package, known, (first, *sorted(known.files, key=lambda entry: entry.path)))


def _dummy(known: Manifest, allowed: bool) -> PackError | None:
    if not known.contents.source.dummy or allowed:
        return None
    return usage(
        f"{known.name} has random weights: its answers mean nothing.",
        "Build it with real weights, or export it anyway with --allow-dummy.",
    )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well; refused where
    something stands there.

    Raises PackError (usage) when `path` exists: an export replaces nothing.
    """
    free_place(path)
    with scratch_folder(path.parent) as holder:
        temporary = holder / "file"
        temporary.touch()
        yield temporary
        temporary.chmod(permitted(0o644))
        place_all(holder, [(temporary, path)])


def place_all(holder: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """Flush what lies in a scratch folder, and give each its final name: all of them or none.

    Raises PackError (usage) where one of the names is taken.
    """
    for temporary, _ in pairs:
        flush_tree(temporary)
    try:
        place(holder, pairs)
    except FileExistsError:
        for _, final in pairs:
            free_place(final)
        raise


def free_place(path: Path, hint: str = "Choose another place with --out, or remove it.") -> None:
    """Raise PackError (usage) where something stands at `path`; what killed processes of ours left
    beside it goes first, also where it is taken."""
    remove_abandoned(path.parent)
    if path.exists() or path.is_symlink():
        raise usage(
            f"{path} already exists, and nothing is replaced.",
            hint,
        )


def outside(destination: Path, package: Path) -> None:
    """Raise PackError (usage) where `place` lies inside a package, which nothing that leaves it
    changes."""
    inner, outer = destination.resolve(), package.resolve()
    if inner == outer or outer in inner.parents:
        raise usage(
            f"{destination} is inside the package, which an export never changes.",
            "Choose another place with --out.",
        )


def place_named(name: str, ending: str = "") -> Path:
    """A place in the current folder, by the name that a package gives itself. Raises PackError
    (usage) for one that leads elsewhere."""
    if "/" in name or not manifest.safe_path(name):
        raise usage(
            f"It calls itself {name!r}, which is not a valid file name.",
            "Name the place with --out.",
        )
    return Path(f"{name}{ending}").absolute()
