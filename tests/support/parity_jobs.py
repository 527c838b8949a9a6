"""Jobs for child processes: one engine looks at many artifacts, and ways to damage one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint
from packager.process import resolve
from packager.quality import parity
from packager.runtime import Report

SETTINGS: dict[str, dict[str, Any]] = {
    "llama.cpp": {"context": 512, "kv": "f16", "threads": 1},
    "openvino": {"context": 512, "kv": "u8", "threads": 1},
    "onnxruntime": {"context": 512, "kv": "f32", "threads": 1},
}


def check_all(
    report: Report,
    *,
    session: str,
    engine: str,
    artifacts: dict[str, str],
    checkpoint: str,
    log: str,
) -> dict[str, Any]:
    """Name -> the result's fields, for artifacts of one engine."""
    opened = Checkpoint.open(Path(checkpoint))
    found = {}
    for name, artifact in artifacts.items():
        model = resolve(session)(artifact, SETTINGS[engine])
        found[name] = parity.check(model, opened, Path(log), stops=True).as_dict()
        model.close()
    return found


def write_openvino_tokenizer(report: Report, *, checkpoint: str, out: str) -> dict[str, Any]:
    """The tokenizer's files of an OpenVINO artifact, made from another checkpoint's tokenizer."""
    from targets.openvino.tokenizer import write_tokenizer

    write_tokenizer(Checkpoint.open(Path(checkpoint)), Path(out))
    return {}


def shift_vocabulary(path: Path) -> None:
    """Every ordinary token of a tokenizer.json gets the id of the one before it."""
    definition = json.loads(path.read_bytes())
    vocab: dict[str, int] = definition["model"]["vocab"]
    definition["model"]["vocab"] = {
        token: (number - 1) % len(vocab) for token, number in vocab.items()
    }
    path.write_text(json.dumps(definition, ensure_ascii=False))


def rewrite_gguf(source: Path, out: Path, **changes: Any) -> Path:
    """A GGUF with other values for some keys (named without `tokenizer.`), its tensors as they
    are."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture)
    wanted = {f"tokenizer.{key.replace('__', '.')}": value for key, value in changes.items()}
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):
            continue
        kind = field.types[0]
        value = wanted.pop(name, None)
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(
            name, field.contents() if value is None else value, kind, sub_type=inner
        )
    assert not wanted, f"no such key: {list(wanted)}"
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def copy(artifact: Path, out: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(artifact, out)
    return out
