"""`export` and its formats: a name, what it is for, and the function that writes it from a
Shipment."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from packager.errors import PackError, no_room, usage
from packager.events import Event, StageFinished, StageProgress, StageStarted
from packager.files import free_bytes, regular_files
from packager.names import did_you_mean
from packager.package.manifest import Manifest
from packager.scratch import scratch_folder
from packager.shipping import pieces
from packager.shipping.added import Added, prepared
from packager.shipping.shipment import Shipment, free_place, outside, place_all, prepare
from packager.shipping.signature import ENDING, Signer, sign
from packager.units import human_bytes

Result = TypeVar("Result")


_WHOLE = ("dir", "tar.zst", "zip", "oci")
"""Formats that are the package itself, whatever it holds."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way in which a package leaves: `write` is `module:function` of (shipment, out, limit) ->
    generator of byte counts.

    `suffix` ends the name of what is written; `cuts` says whether files can be kept below a size;
    `takes` names the settings that the function has besides; `runtimes` are those whose packages
    make sense in it, with the reason why others do not, all of them where it is empty; `one_gguf`
    says that it takes no shards; `with_adapters` that adapters of the package can leave with it.
    """

    name: str
    summary: str
    write: str
    suffix: str = ""
    cuts: bool = False
    takes: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    why_not: str = ""
    one_gguf: bool = False
    with_adapters: bool = False

    def misfit(self, manifest: Manifest) -> PackError | None:
        """Why a package cannot leave in this format (exit code 2); None when it can."""
        engine = manifest.contents.runtime.name
        if manifest.contents.adapter is not None and self.name not in _WHOLE:
            return usage(
                f"{self.name} holds a model, and this package is an adapter.",
                f"Take {', '.join(_WHOLE)}.",
            )
        if self.runtimes and engine not in self.runtimes:
            return usage(
                f"{self.name} cannot take a package for {engine}: {self.why_not}.",
                f"Build one with {' or '.join(self.runtimes)}, or take another format.",
            )
        if self.name == "ollama" and manifest.contents.task == "rerank":
            return usage(
                "Ollama scores no documents, and this package is a reranker.",
                "Take another format, for example docker, which serves /v1/rerank.",
            )
        if (
            self.one_gguf
            and sum(
                entry.path.startswith("model/") and entry.path.endswith(".gguf") and not entry.role
                for entry in manifest.files
            )
            > 1
        ):
            return usage(
                f"{self.name} takes one GGUF, and this package has several.",
                "Build it without a limit on the size of its files, or join them with "
                "llama-gguf-split --merge.",
            )
        return None


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            "dir",
            "a plain folder, large files in pieces where asked",
            "packager.shipping.formats:folder",
            "-dir",
            True,
        ),
        Format(
            "tar.zst",
            "one reproducible file, to be unpacked with qwen-pack, or tar and zstd",
            "packager.shipping.formats:tar_zst",
            ".tar.zst",
            True,
        ),
        Format(
            "zip",
            "one reproducible file that any system opens",
            "packager.shipping.formats:zip_file",
            ".zip",
            True,
        ),
        Format(
            "oci",
            "an OCI image layout following CNCF ModelPack, for registries",
            "packager.shipping.oci:write_layout",
            "-oci",
        ),
        Format(
            "ollama",
            "a Modelfile next to the GGUF, for ollama create",
            "packager.shipping.apps.ollama:write",
            "-ollama",
            runtimes=("llama.cpp",),
            why_not="Ollama reads only GGUF",
            one_gguf=True,
            with_adapters=True,
        ),
        Format(
            "docker",
            "a Dockerfile around an image that has the engine, which you name",
            "packager.shipping.apps.docker:write",
            "-docker",
            takes=("base_image",),
            runtimes=("llama.cpp", "openvino", "onnxruntime"),
            why_not="there is no runner for that engine",
            with_adapters=True,
        ),
        Format(
            "android",
            "AI packs for Play, app assets, and Kotlin that verifies before it loads",
            "packager.shipping.apps.android:write",
            "-android",
        ),
        Format(
            "ios",
            "a Background Assets pack, and Swift that verifies before it loads",
            "packager.shipping.apps.ios:write",
            "-ios",
            runtimes=("llama.cpp", "onnxruntime"),
            why_not="that engine does not run on iOS",
        ),
        Format(
            "embedded",
            "a tar as input of RAUC and Mender, and C that verifies before it loads",
            "packager.shipping.apps.embedded:write",
            "-embedded",
            takes=("device_type",),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left: the place (the first piece of several), its files and their bytes, and
    the adapters that went with the package."""

    path: Path
    format: str
    files: int
    bytes: int
    signature: Path | None = None
    added: tuple[Added, ...] = ()


def export(
    package: Path,
    name: str,
    out: Path | None = None,
    *,
    limit: int | None = None,
    allow_dummy: bool = False,
    accepted: Collection[str] = (),
    signer: Signer | None = None,
    settings: Mapping[str, str] | None = None,
    adapters: Sequence[str] = (),
) -> Generator[Event, None, Exported]:
    """Write the package in the format `name` to `out` (its own name, here, by default), with
    events; the package stays as it is.

    `settings` are what the format takes besides, by the names of its `takes`; `adapters` are
    adapter packages of this one, as `[NAME=]PATH`, that leave with it, one to be chosen with each
    request. Raises PackError: 2 for an unknown format, a setting that it does not take, an engine
    of which it makes no sense, a place that is taken, random weights, a licence not accepted; 6 for
    a package that is not what its manifest says, and an adapter of another one; 7 when the disk is
    too small.
    """
    target_format = format_named(name)
    if limit is not None and not target_format.cuts:
        raise usage(
            f"{name} cannot keep its files below a size.",
            "Formats that can: " + ", ".join(row.name for row in FORMATS.values() if row.cuts),
        )
    given = dict(settings or {})
    for key in given:
        if key not in target_format.takes:
            takers = ", ".join(row.name for row in FORMATS.values() if key in row.takes)
            raise usage(
                f"{name} does not use --{key.replace('_', '-')}.",
                f"It is for: {takers or 'no format'}.",
            )
    shipment = prepare(package, allow_dummy=allow_dummy, accepted=accepted)
    misfit = target_format.misfit(shipment.manifest)
    if misfit:
        raise misfit
    added = _added(target_format, shipment, adapters, accepted)
    total = shipment.total + sum(row.shipment.total for row in added)
    destination = (out or Path(f"{shipment.name}{target_format.suffix}")).absolute()
    outside(destination, package)
    _free_places(destination, cuts=limit is not None, signed=signer is not None)
    free = free_bytes(destination.parent)
    if free < total:
        raise no_room(
            f"{destination.parent} has {human_bytes(free)} free; the export takes "
            f"{human_bytes(total)}.",
            "Choose another disk with --out.",
        )
    with scratch_folder(destination.parent) as holder:
        aside = holder / "export"
        aside.mkdir()
        if signer is not None:
            # First: a key that cannot sign must not be found out after an hour of copying.
            sign(package, signer, aside / f"{destination.name}{ENDING}")
        module, _, function = target_format.write.partition(":")
        work: Generator[int, None, Path | None] = getattr(import_module(module), function)(
            shipment,
            aside / destination.name,
            limit,
            **given,
            **({"added": added} if added else {}),
        )
        first = yield from staged(_counted(work, total), "export", f"Export as {name}")
        # The archive and its signature, or all pieces: together or not at all.
        place_all(
            holder,
            [
                (path, destination.with_name(path.name))
                for path in sorted(aside.iterdir(), reverse=True)
            ],
        )
    whole = destination.with_name((first or destination).name)
    written = _written(whole)
    signature = destination.with_name(f"{destination.name}{ENDING}") if signer is not None else None
    return Exported(
        *(whole, name, len(written), sum(path.stat().st_size for path in written)),
        *(signature, added),
    )


def _added(
    target_format: Format, shipment: Shipment, named: Sequence[str], accepted: Collection[str]
) -> tuple[Added, ...]:
    """The adapters that leave with a package. Raises PackError (usage) where the format
    takes none."""
    if named and not target_format.with_adapters:
        takers = ", ".join(row.name for row in FORMATS.values() if row.with_adapters)
        raise usage(
            f"{target_format.name} takes no adapters.",
            f"Export the adapter package by itself, or take one of: {takers}.",
        )
    return prepared(shipment, named, accepted)


def _free_places(destination: Path, *, cuts: bool, signed: bool) -> None:
    """Raise PackError (usage) where one of the names is taken that the export may need; what we
    left half-done goes first."""
    free_place(destination)
    if signed:
        free_place(destination.with_name(f"{destination.name}{ENDING}"))
    if cuts and destination.parent.is_dir():
        for other in sorted(destination.parent.iterdir()):
            if pieces.is_piece(destination.name, other.name):
                free_place(other)


def format_named(name: str) -> Format:
    """The format of that name. Raises PackError (usage) for an unknown one."""
    if name not in FORMATS:
        raise usage(
            f"There is no format {name!r}.{did_you_mean(name, FORMATS)}",
            f"Known: {', '.join(FORMATS)}.",
        )
    return FORMATS[name]


def staged(
    work: Generator[tuple[int, int], None, Result], stage: str, title: str
) -> Generator[Event, None, Result]:
    """Work that yields (bytes done, bytes in all) as the events of a build of one stage, for who
    shows builds."""
    yield StageStarted(stage, title, 1, 1)
    started = time.monotonic()
    try:
        while True:
            try:
                done, total = next(work)
            except StopIteration as stop:
                result: Result = stop.value
                break
            yield StageProgress(stage, done, total)
    finally:
        work.close()
    yield StageFinished(stage, time.monotonic() - started, False, "", {})
    return result


def _counted(
    sizes: Generator[int, None, Result], total: int
) -> Generator[tuple[int, int], None, Result]:
    done = 0
    try:
        while True:
            try:
                done += next(sizes)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            yield min(done, total), total
    finally:
        sizes.close()


def _written(destination: Path) -> list[Path]:
    return regular_files(destination) if destination.is_dir() else pieces.found(destination)
