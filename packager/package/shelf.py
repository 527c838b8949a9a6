"""The shelf: packages in a folder, and those this user built elsewhere; what is on it can be
removed whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from packager.errors import PackError, usage
from packager.files import write_json
from packager.foreign import bounded_bytes, parse_json
from packager.limits import SETTINGS_BYTES
from packager.locks import alone_in
from packager.package import manifest, verify
from packager.package.package import Package
from packager.paths import cache_dir, made_cache_dir
from packager.scratch import scratch_folder

_MOST_REMEMBERED = 200


def find(folder: Path) -> tuple[Package, ...]:
    """The package that `folder` is, those directly in it, and those remembered; newest first, each
    once.

    Only manifests are read. A folder whose manifest cannot be trusted is no package.
    """
    places = [folder, *_subfolders(folder), *remembered()]
    packages: dict[Path, Package] = {}
    for candidate in places:
        path = candidate.absolute()
        if path not in packages and (path / manifest.NAME).is_file():
            with suppress(PackError, OSError):
                packages[path] = Package(path, manifest.read(path))
    return tuple(
        sorted(
            packages.values(),
            key=lambda one: (one.contents.created or "", str(one.path)),
            reverse=True,
        )
    )


def remembered() -> list[Path]:
    """Where packages were built, as far as they are still there."""
    with suppress(OSError, PackError):
        rows = parse_json(bounded_bytes(_file(), SETTINGS_BYTES), str(_file()))
        if isinstance(rows, list):
            return [Path(row) for row in rows if isinstance(row, str) and Path(row).is_dir()]
    return []


def remember(package: Path) -> None:
    """Keep the place of a package that was built, so that it is found from everywhere."""
    path = package.absolute()
    with alone_in(made_cache_dir()):
        rows = [str(path), *(str(other) for other in remembered() if other != path)]
        write_json(_file(), rows[:_MOST_REMEMBERED])


def delete(package: Path) -> None:
    """Remove a package and all its files. Raises PackError where that is none, or holds anything
    that its manifest does not name."""
    removable(package)
    # No system renames `.`, the folder that one stands in.
    place = package.resolve()
    # Away at once: what is left after an interruption is no package any more, and goes with the
    # next of our work there.
    with scratch_folder(place.parent) as holder:
        place.rename(holder / "removed")


def removable(package: Path) -> manifest.Manifest:
    """The manifest of a folder in which everything was made by qwen-pack. Raises PackError where
    that is not so."""
    if package.is_symlink():
        raise usage(
            f"{package} is a link, not a package.",
            "Name the folder that it leads to; nothing was deleted.",
        )
    known = manifest.read(package)
    strangers = verify.strangers(package)
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise usage(
            f"{package} holds files that qwen-pack did not write: {strangers[0]}{more}.",
            "Move that away first; nothing was deleted.",
        )
    return known


def _subfolders(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return []


def _file() -> Path:
    return cache_dir() / "packages.json"
