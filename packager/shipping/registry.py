"""Push a package to an OCI registry, and pull one: layers are the package's own files, found again
by their digests."""

from __future__ import annotations

from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

from packager.errors import PackError, bad_input, no_room
from packager.files import folder_that_appears_whole, free_bytes
from packager.foreign import parse_json
from packager.inspection import refuse_unsafe
from packager.limits import MANIFEST_BYTES
from packager.package import manifest
from packager.package.manifest import FileEntry, Manifest
from packager.package.package import Package
from packager.shipping.oci import FILEPATH, MODEL_CONFIG, MODEL_MANIFEST, Blob, Image, images
from packager.shipping.registry_client import DIGEST, Repository
from packager.shipping.shipment import Shipment, free_place, prepare
from packager.units import human_bytes

_MOST_LAYERS = 10_000


def push(
    package: Path,
    reference: str,
    *,
    allow_dummy: bool = False,
    accepted: Collection[str] = (),
    token_hosts: Collection[str] = (),
) -> Generator[tuple[int, int], None, dict[str, str]]:
    """Push a package to HOST/NAME:TAG; yields (bytes done, bytes in all), returns the digest per
    tag that was written.

    A package of one GGUF gets TAG-docker and TAG-ollama over the same blob. What the registry holds
    already is not sent again; the tags are set last. `token_hosts` are hosts beside the registry's
    own that its log-in may go to. Raises PackError: as `shipment.prepare`; 5 for what the registry
    refuses.
    """
    shipment = prepare(package, allow_dummy=allow_dummy, accepted=accepted)
    repository = Repository(reference, token_hosts)
    made = images(shipment)
    blobs = {blob.digest: blob for image in made for blob in image.blobs}
    total = sum(blob.size for blob in blobs.values())
    done = 0
    for blob in blobs.values():
        # What the registry has is not sent again, but read all the same: a package that is not what
        # it claims gets no tag.
        chunks = _chunks(shipment, blob)
        for size in map(len, chunks) if repository.has(blob) else repository.upload(blob, chunks):
            done += size
            yield done, total
    tags: dict[str, str] = {}
    for image in made:
        tags[tag_of(repository, image)] = image.manifest.digest
        repository.put_manifest(image.manifest, tag_of(repository, image))
    return tags


def tag_of(repository: Repository, image: Image) -> str:
    """The tag of one of the images."""
    return f"{repository.tag}{image.suffix}"


def _chunks(shipment: Shipment, blob: Blob) -> Any:
    if blob.data is not None:
        return iter([blob.data])
    assert blob.entry is not None
    return shipment.chunks(blob.entry)


def pull(
    reference: str, out: Path, token_hosts: Collection[str] = ()
) -> Generator[tuple[int, int], None, Package]:
    """Pull a package into the new folder `out`; yields (bytes done, bytes in all).

    The layers must be those files that the package's own manifest names, with its digests; each is
    compared before the folder gets its name. Raises PackError: 5 for a registry that does not
    answer or let us in, 6 for anything that is not what it claims to be, or not safe to open, 7 for
    a disk that is too small, 2 where `out` exists.
    """
    free_place(out)
    repository = Repository(reference, token_hosts)
    layers = _layers(repository.manifest(), reference)
    own = layers.pop(manifest.NAME, None)
    if own is None:
        raise bad_input(
            f"{reference} holds no manifest.json: it is not a package of qwen-pack.",
            "Pull it with the tool that pushed it.",
        )
    if own.size > MANIFEST_BYTES:
        raise bad_input(
            f"{reference}: its manifest.json has {own.size} bytes, more than any manifest.",
            "Do not use it.",
        )
    text = b"".join(repository.blob(f"sha256:{own.sha256}", own.size, manifest.NAME))
    known = manifest.parse(text, f"{reference}: {manifest.NAME}")
    _same(known, layers, reference)
    total = sum(entry.size for entry in known.files)
    free = free_bytes(out.parent)
    if free < total:
        raise no_room(
            f"{out.parent} has {human_bytes(free)} free; the package takes {human_bytes(total)}.",
            "Choose another disk with --out.",
        )
    done = 0
    with folder_that_appears_whole(out) as folder:
        (folder / manifest.NAME).write_bytes(text)
        for entry in known.files:
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for piece in repository.blob(f"sha256:{entry.sha256}", entry.size, entry.path):
                    done += file.write(piece)
                    yield done, total
        checked = manifest.read(folder)
        refuse_unsafe(folder, checked, reference)
    return Package(out, checked)


def _layers(data: bytes, reference: str) -> dict[str, FileEntry]:
    """The files that a ModelPack manifest names. Raises PackError (exit code 6) for anything
    else."""
    wrong = bad_input(
        f"{reference} is not a CNCF ModelPack model.",
        "Name the tag without -docker or -ollama; or pull it with its own tool.",
    )
    try:
        body = parse_json(data, reference)
        if (
            body.get("artifactType") != MODEL_MANIFEST
            or body["config"]["mediaType"] != MODEL_CONFIG
            or len(body["layers"]) > _MOST_LAYERS
        ):
            raise wrong
        rows = [
            (row["annotations"][FILEPATH], row["digest"], row["size"]) for row in body["layers"]
        ]
    except (PackError, KeyError, TypeError, AttributeError):
        raise wrong from None
    entries: dict[str, FileEntry] = {}
    for path, digest, size in rows:
        if (
            not isinstance(path, str)
            or not (path == manifest.NAME or manifest.safe_path(path))
            or path in entries
        ):
            raise bad_input(
                f"{reference} has a layer with the unsafe path {path!r}.", "Do not use it."
            )
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise bad_input(f"{reference}: {path} has an invalid digest.", "Do not use it.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise bad_input(f"{reference}: {path} has an invalid size.", "Do not use it.")
        entries[path] = FileEntry(path, size, digest.removeprefix("sha256:"))
    return entries


def _same(known: Manifest, layers: dict[str, FileEntry], reference: str) -> None:
    for entry in known.files:
        if layers.get(entry.path) != entry:
            raise bad_input(
                f"{reference}: its layers and its manifest.json differ about {entry.path}.",
                "Do not use it.",
            )
    odd = sorted(set(layers) - {entry.path for entry in known.files})
    if odd:
        raise bad_input(
            f"{reference} holds {odd[0]}, which its manifest.json does not name.", "Do not use it."
        )
