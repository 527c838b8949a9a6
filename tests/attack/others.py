"""The kinds of input that stand beside checkpoints and packages: pictures, projectors, records of a
shared cache, plans of sweeps, heads of embedders."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.attack import mutate
from tests.attack.kind import Kind, Wrong

_SIDE = 24


def _picture(form: str) -> Callable[[Path], bytes]:
    def seed(folder: Path) -> bytes:
        from PIL import Image

        image = Image.effect_noise((_SIDE, _SIDE), 60).convert("RGB")
        out = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # stands on its side
        image.save(out, form, exif=exif)
        return out.getvalue()

    return seed


def _read_picture(folder: Path, data: bytes) -> None:
    """As the process that decodes reads it, without the bounds that it sets itself."""
    from packager.pictures.decode import rgb

    image, _ = rgb(data, "picture")
    if image.mode != "RGB" or image.width * image.height > 1 << 26:
        raise Wrong("a picture of another kind or of any size")


def _png_mutant(random_: random.Random, data: bytes) -> bytes:
    """Bytes changed; two of three times one chunk, with its sum."""
    import struct
    import zlib

    if random_.randrange(3) == 0:
        return mutate.of_bytes(random_, data)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    place = random_.randrange(len(chunks))
    kind, inner = chunks[place]
    chunks[place] = (kind, mutate.of_bytes(random_, inner))
    if random_.randrange(4) == 0:
        chunks.insert(random_.randrange(len(chunks)), random_.choice(chunks))
    return data[:8] + b"".join(
        struct.pack(">I", len(inner)) + kind + inner + struct.pack(">I", zlib.crc32(kind + inner))
        for kind, inner in chunks
    )


def _seed_projector(folder: Path) -> bytes:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(folder / "mmproj.gguf", "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_clip_projector_type("qwen3vl_merger")
    writer.add_clip_has_vision_encoder(True)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_tensor("v.patch_embd.weight", np.ones((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "mmproj.gguf").read_bytes()


def _read_projector(folder: Path, data: bytes) -> None:
    from packager.errors import bad_input
    from packager.inspection import gguf
    from packager.inspection.unsafe import Unsafe

    try:
        gguf.refuse(data, len(data))
    except Unsafe as reason:
        raise bad_input(str(reason)) from None


_ARTIFACT = b"an artifact" * 99


def _seed_shared(folder: Path) -> bytes:
    from packager.pipeline.stage_record import sealed

    for part in ("objects", "records", "claims"):
        (folder / "shared" / part).mkdir(parents=True)
    digest = hashlib.sha256(_ARTIFACT).hexdigest()
    rows = [{"path": "model/model.gguf", "size": len(_ARTIFACT), "sha256": digest}]
    return json.dumps(sealed({"seconds": 1.5}, rows)).encode()


def _sealed_mutant(random_: random.Random, data: bytes) -> bytes:
    """A record changed, and two of three times sealed again: who writes into a cache can."""
    from packager.pipeline.stage_record import sealed

    changed = mutate.of_json(random_, data)
    if random_.randrange(3):
        try:
            value = json.loads(changed)
            return json.dumps(sealed(value["facts"], value["files"])).encode()
        except (ValueError, RecursionError, KeyError, TypeError):
            return changed
    return changed


def _read_shared(folder: Path, data: bytes) -> None:
    """A stage brought from a cache that others can write into: nothing but the true bytes, below
    the folder."""
    from packager.pipeline.shared_cache import Store
    from tests.attack.packages import finish

    cache = Store(str(folder / "shared"))
    for path in (cache._record("convert", "0"), cache._object(_digest())):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(cache._record("convert", "0")).write_bytes(data)
    Path(cache._object(_digest())).write_bytes(_ARTIFACT)
    (folder / "in").mkdir(exist_ok=True)
    if finish(cache.pull("convert", "0", folder / "in")) is None:
        from packager.errors import bad_input

        raise bad_input("It is not taken.")
    for path in (folder / "in").rglob("*"):
        if path.is_file() and path.read_bytes() != _ARTIFACT:
            raise Wrong("other bytes came than those of the record")


def _digest() -> str:
    return hashlib.sha256(_ARTIFACT).hexdigest()


_PLAN = b"""name = "nightly"

[axes]
variants = ["Qwen3-0.6B", "Qwen3-1.7B"]
recipes = ["plain:b8"]
targets = ["big", "small"]
contexts = [512, 4096]

[[exclude]]
variant = "Qwen3-1.7B"
target = "sm*"
why = "known to be too slow"

[budgets]
use_case = "chat"
min_decode_tps = 5
max_artifact_bytes = "2 GB"

[limits]
disk = "20 GB"

[prune]
keep = 1
by = ["quality"]
"""


def _read_plan(folder: Path, data: bytes) -> None:
    from packager.sweep.matrix import matrix
    from packager.sweep.plan_file import read
    from tests.support.sweeps import known

    (folder / "plan.toml").write_bytes(data)
    house = known()
    matrix(read(folder / "plan.toml", house), house)


def _seed_head(folder: Path) -> bytes:
    from packager.checkpoint.retrieval_file import FILE, Head, write

    (folder / "artifact").mkdir()
    write(Head("last", normalize=True, query="Instruct: x\nQuery:"), folder / "artifact")
    return (folder / "artifact" / FILE).read_bytes()


def _read_head(folder: Path, data: bytes) -> None:
    from packager.checkpoint.retrieval_file import FILE, POOLINGS, read

    (folder / "artifact" / FILE).write_bytes(data)
    if read(folder / "artifact").pooling not in POOLINGS:
        raise Wrong("a pooling that nobody knows")


OTHERS: tuple[Kind, ...] = (
    Kind("picture, PNG", _picture("PNG"), _png_mutant, _read_picture),
    Kind("picture, JPEG", _picture("JPEG"), mutate.of_bytes, _read_picture),
    Kind("picture, WebP", _picture("WEBP"), mutate.of_bytes, _read_picture),
    Kind("projector, GGUF", _seed_projector, mutate.of_bytes, _read_projector),
    Kind("record of a shared cache", _seed_shared, _sealed_mutant, _read_shared, 3),
    Kind("plan of a sweep", lambda folder: _PLAN, mutate.of_text, _read_plan, 3),
    Kind("head of an embedder", _seed_head, mutate.of_json, _read_head),
)
"""What else comes from outside."""
