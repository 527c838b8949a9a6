"""Every kind of input that comes from outside: a genuine one, how it is mutated, and the code of
ours that reads it."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.attack import mutate
from tests.attack.checkpoints import CHECKPOINTS
from tests.attack.devices import DEVICES
from tests.attack.kind import Kind, Wrong
from tests.attack.others import OTHERS
from tests.attack.packages import NEW, OLD, finish, rich_manifest, tree, write_files
from tests.attack.parts import PARTS


def _seed_vocabulary(folder: Path) -> bytes:
    from packager.checkpoint.byte_level_bpe import tiktoken_ranks

    return tiktoken_ranks(400)


def _read_ranks(folder: Path, data: bytes) -> None:
    from targets.gguf.tiktoken import FILE, read_tiktoken

    (folder / FILE).write_bytes(data)
    read_tiktoken(folder / FILE, 1000)


def _read_template(folder: Path, data: bytes) -> None:
    from packager.checkpoint import template

    (folder / "t.jinja").write_bytes(data)
    text = template.read(folder / "t.jinja")
    messages = [{"role": "user", "content": "hello"}]
    template.render_apart(text, messages, folder / "log", enable_thinking=False)


def _seed_matrix(folder: Path) -> bytes:
    import numpy as np

    from targets.gguf.imatrix import write_imatrix

    sums = {f"blk.{layer}.attn_q.weight": np.ones((1, 32), np.float32) for layer in range(4)}
    counts = {name: np.array([512], np.int64) for name in sums}
    write_imatrix(folder / "m.gguf", sums, counts, 4, 512, "text.txt")
    return (folder / "m.gguf").read_bytes()


def _seed_dat(folder: Path) -> bytes:
    rows = [struct.pack("<i", 4)]
    for layer in range(4):
        name = f"blk.{layer}.attn_q.weight".encode()
        rows.append(
            struct.pack("<i", len(name)) + name + struct.pack("<ii", 4, 32) + b"\0\0\x80?" * 32
        )
    return b"".join(rows) + struct.pack("<ii", 4, 4) + b"text"


def _read_matrix(folder: Path, data: bytes) -> None:
    from targets.gguf.imatrix import read_imatrix

    (folder / "m").write_bytes(data)
    read_imatrix(folder / "m")


def _read_device(folder: Path, data: bytes) -> None:
    from targets.devices.device_file import read_target

    (folder / "device.toml").write_bytes(data)
    read_target(folder / "device.toml", ("llama.cpp", "openvino", "onnxruntime"))


def _read_use_cases(folder: Path, data: bytes) -> None:
    from packager.need.usecases import parse

    parse(data.decode("utf-8", "replace"), "use_cases.toml")


def _read_settings(folder: Path, data: bytes) -> None:
    from tui.settings import read

    (folder / "tui.toml").write_bytes(data)
    read(folder / "tui.toml", ("quit", "copy"), ("nord",))


def _own_file(name: str) -> Callable[[Path], bytes]:
    root = Path(__file__).resolve().parents[2]
    return lambda folder: (root / name).read_bytes()


def _sealed(random_: random.Random, data: bytes) -> bytes:
    """A manifest changed, and two of three times sealed again, so that its digest is right."""
    from packager.package.manifest import seal

    changed = mutate.of_json(random_, data)
    if random_.randrange(3):
        try:
            value = json.loads(changed)
            return json.dumps(seal(value)).encode() if isinstance(value, dict) else changed
        except (ValueError, RecursionError):
            return changed
    return changed


def _seed_manifest(folder: Path) -> bytes:
    write_files(folder / "package", OLD)
    return rich_manifest()


def _read_manifest(folder: Path, data: bytes) -> None:
    from packager.package import manifest
    from packager.pipeline import bench
    from packager.report import compare, figures
    from packager.shipping.oci import images
    from packager.shipping.shipment import prepare

    package = folder / "package"
    (package / manifest.NAME).write_bytes(data)
    shipment = prepare(package, allow_dummy=True, accepted=("unstated", "text"))
    known = shipment.manifest.contents
    figures.rows_of(known)
    compare.rows([known, known])
    if known.telling is not None:
        bench.judged(known, known.telling)
    images(shipment)


def _seed_archive(kind: str, folder: Path) -> bytes:
    from packager.shipping.export import export

    package = write_files(folder / "package", OLD)
    made = finish(export(package, kind, folder / "seed", allow_dummy=True, accepted=("unstated",)))
    data: bytes = made.path.read_bytes()
    made.path.unlink()
    return data


def _tar_mutant(random_: random.Random, data: bytes) -> bytes:
    """The tar changed below the compression, or the compressed bytes."""
    import zstandard

    if random_.randrange(4) == 0:
        return mutate.of_bytes(random_, data)
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    if random_.randrange(3) == 0:
        # A member more, of any type and name.
        row = tarfile.TarInfo(
            random_.choice(("tiny/README.md", "../out", "/abs", "tiny/x", "a" * 300))
        )
        row.type = random_.choice(
            (b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L", b"K", b"S", b"7")
        )
        row.size = random_.choice((0, 5, 511, 1 << 33))
        row.linkname = "/etc/passwd"
        place = 512 * random_.randrange(len(plain) // 512)
        plain = (
            plain[:place]
            + row.tobuf(random_.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
            + plain[place:]
        )
    else:
        header = 512 * random_.randrange(len(plain) // 512)
        part = mutate.of_bytes(random_, plain[header : header + 512])
        plain = plain[:header] + part + plain[header + 512 :]
    return zstandard.ZstdCompressor().compress(plain)


def _zip_mutant(random_: random.Random, data: bytes) -> bytes:
    """The lists of files changed, where a zip keeps times, offsets and sizes."""
    if random_.randrange(3) == 0:
        return mutate.of_bytes(random_, data)
    out = bytearray(data)
    places = [
        at for at in range(len(out) - 4) if out[at : at + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
    ]
    for _ in range(random_.choice((1, 1, 3))):
        place = random_.choice(places) + random_.randrange(4, 46)
        width = random_.choice((1, 2, 4))
        out[place : place + width] = random_.randbytes(width)
    return bytes(out)


def _read_archive(folder: Path, data: bytes) -> None:
    from packager.shipping.unpack import unpack

    place = folder / "in"
    place.mkdir(exist_ok=True)
    (place / "archive").write_bytes(data)
    finish(unpack(place / "archive", place / "out"))
    if tree(place / "out") != tree(folder / "package"):
        raise Wrong("an archive was unpacked into another package")


def _seed_patch(folder: Path) -> bytes:
    from packager.shipping.delta import write_patch

    old, new = write_files(folder / "old", OLD), write_files(folder / "package", NEW)
    made = finish(write_patch(old, new, folder / "p", allow_dummy=True, accepted=("unstated",)))
    data: bytes = made.path.read_bytes()
    return data


def _patch_mutant(random_: random.Random, data: bytes) -> bytes:
    """Bytes changed, and two of three times the digest with them."""
    import hashlib

    if random_.randrange(3) == 0:
        return mutate.of_bytes(random_, data)
    start = len(b"qwen-pack patch 1\n") if random_.randrange(4) else 0
    body = data[:start] + mutate.of_bytes(random_, data[start:-32])
    return body + hashlib.sha256(body).digest()


def _read_patch(folder: Path, data: bytes) -> None:
    from packager.shipping.patch import apply

    place = folder / "in"
    place.mkdir(exist_ok=True)
    (place / "patch").write_bytes(data)
    finish(apply(place / "patch", folder / "old", place / "out"))
    if tree(place / "out") != tree(folder / "package"):
        raise Wrong("a patch made another package")


def _seed_pieces(folder: Path) -> bytes:
    from packager.shipping.export import export
    from packager.shipping.folder import PIECES

    write_files(folder / "package", OLD)
    finish(
        export(
            folder / "package",
            "dir",
            folder / "cut",
            limit=1 << 16,
            allow_dummy=True,
            accepted=("unstated",),
        )
    )
    return (folder / "cut" / PIECES).read_bytes()


def _read_pieces(folder: Path, data: bytes) -> None:
    from packager.shipping.folder import PIECES, join

    (folder / "cut" / PIECES).write_bytes(data)
    (folder / "in").mkdir(exist_ok=True)
    finish(join(folder / "cut", folder / "in" / "out"))
    if tree(folder / "in" / "out") != tree(folder / "package"):
        raise Wrong("pieces were joined into another package")


def _seed_layers(folder: Path) -> bytes:
    from packager.shipping.oci import images
    from packager.shipping.shipment import prepare

    package = write_files(folder / "package", OLD)
    data = images(prepare(package, allow_dummy=True, accepted=("unstated",)))[0].manifest.data
    assert data is not None
    return data


def _read_layers(folder: Path, data: bytes) -> None:
    from packager.package.manifest import NAME, safe_path
    from packager.shipping.registry import _layers

    for path in _layers(data, "registry/model"):
        if path != NAME and not safe_path(path):
            raise Wrong(f"a layer has the path {path!r}")


def _read_tasks(folder: Path, data: bytes) -> None:
    from packager.behaviour.tasks import parse

    parse("tasks", data, "tasks.jsonl")


def _read_card(folder: Path, data: bytes) -> None:
    import gguf

    from targets.gguf import model_card

    (folder / "README.md").write_bytes(data)
    gguf.Metadata.apply_metadata_heuristic(
        gguf.Metadata(), dict(model_card.read(folder).entries), {}, None, 1000
    )


def _read_record(folder: Path, data: bytes) -> None:
    from packager.pipeline.cache import BuildCache

    place = folder / "stages" / "convert-0"
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_bytes(data)
    BuildCache(folder).look_up("convert", "0")


def _read_answer(folder: Path, data: bytes) -> None:
    from packager.behaviour.answer import parse

    parse(data.decode("utf-8", "replace"), True)


def _read_text(folder: Path, data: bytes) -> None:
    from packager.quality.text import of_file

    (folder / "text.txt").write_bytes(data)
    of_file(folder / "text.txt")


_CARD = b"""---
license: apache-2.0
license_name: qwen
base_model:
- Qwen/Qwen3-0.6B
tags: [chat, "no"]
language:
- en
- no
version: 1.0
---
# A model
"""
_ANSWER = (
    b'<think>\nhm\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"a": [1, 2]}}\n</tool_call>'
)
_RECORD = json.dumps(
    {"files": [{"path": "a", "size": 1, "sha256": "0" * 64}], "seconds": 1.5}
).encode()
_TEMPLATE = b"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | tojson }}{% endfor %}"

KINDS: tuple[Kind, ...] = (
    *CHECKPOINTS,
    Kind("qwen.tiktoken", _seed_vocabulary, mutate.of_text, _read_ranks),
    Kind("chat template", lambda folder: _TEMPLATE, mutate.of_text, _read_template, 150),
    Kind("importance matrix, GGUF", _seed_matrix, mutate.of_bytes, _read_matrix),
    Kind("importance matrix, older form", _seed_dat, mutate.of_bytes, _read_matrix),
    Kind(
        "device file", _own_file("targets/devices/laptop-cpu.toml"), mutate.of_text, _read_device, 2
    ),
    Kind("use cases", _own_file("packager/need/usecases.toml"), mutate.of_text, _read_use_cases, 2),
    Kind(
        "settings of the TUI",
        lambda folder: b'theme = "nord"\n[keys]\nquit = "f9"\n',
        mutate.of_text,
        _read_settings,
    ),
    Kind("manifest.json", _seed_manifest, _sealed, _read_manifest),
    Kind("zip", partial(_seed_archive, "zip"), _zip_mutant, _read_archive),
    Kind("tar.zst", partial(_seed_archive, "tar.zst"), _tar_mutant, _read_archive),
    Kind("patch", _seed_patch, _patch_mutant, _read_patch, 2),
    Kind("pieces.json", _seed_pieces, mutate.of_json, _read_pieces),
    Kind("manifest of a registry", _seed_layers, mutate.of_json, _read_layers),
    Kind(
        "set of tasks", _own_file("packager/behaviour/tasks.jsonl"), mutate.of_text, _read_tasks, 5
    ),
    Kind("model card", lambda folder: _CARD, mutate.of_text, _read_card),
    Kind("record of the cache", lambda folder: _RECORD, mutate.of_json, _read_record),
    Kind("answer of a model", lambda folder: _ANSWER, mutate.of_text, _read_answer),
    *PARTS,
    *DEVICES,
    *OTHERS,
    Kind("text of the quality gate", lambda folder: b"A text.\n" * 50, mutate.of_text, _read_text),
)
"""All kinds, each a stream of mutants of its own."""
