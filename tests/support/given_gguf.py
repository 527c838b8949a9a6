"""GGUFs as somebody else writes them: by llama.cpp's own quantizer, and with keys changed by the
gguf package's own tool."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from packager.plan.adopted import Adopted
from packager.plan.adoption import adoptable
from targets import registry
from targets.gguf import library
from targets.llama_cpp.adopt import describe
from tests.support.make_checkpoint import Silent


def with_keys(source: Path, out: Path, **changes: Any) -> Path:
    """A copy with other values under keys whose dots are written as double underscores; None takes
    one away."""
    reader = gguf.GGUFReader(source)
    named = {key.replace("__", "."): value for key, value in changes.items()}
    architecture = (
        named.pop("general.architecture", None) or reader.fields["general.architecture"].contents()
    )
    writer = gguf.GGUFWriter(out, architecture)
    new: dict[str, MetadataDetails] = {}
    for key, value in named.items():
        if value is None:
            continue
        field = reader.fields.get(key)
        kind = field.types[0] if field else gguf.GGUFValueType.get_type(value)
        sub = field.types[-1] if field and kind == gguf.GGUFValueType.ARRAY else None
        new[key] = MetadataDetails(kind, value, sub_type=sub)
    gone = [key for key, value in named.items() if value is None]
    copy_with_new_metadata(reader, writer, new, gone)
    return out


def quantized(
    source: Path,
    out: Path,
    preset: str,
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    keep_split: bool = False,
    recorded: str = "",
) -> Path:
    """What llama.cpp's own quantizer makes of a GGUF; `weights` is an importance matrix, `recorded`
    the name of its file that goes into the keys, as llama-quantize writes it."""
    lib = library.llama()
    params = lib.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[f"MOSTLY_{preset}"])
    params.nthread = 1
    params.keep_split = keep_split
    kept = [np.ascontiguousarray(value, dtype=np.float32) for value in (weights or {}).values()]
    given = (lib.llama_model_imatrix_data * (len(kept) + 1))()
    for place, (name, value) in enumerate(zip(weights or {}, kept, strict=True)):
        given[place].name, given[place].size = name.encode(), value.size
        given[place].data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if weights:
        params.imatrix = given
    overrides = (lib.llama_model_kv_override * 3)()
    if recorded:
        for place, (key, value) in enumerate(
            (("quantize.imatrix.file", recorded), ("quantize.imatrix.chunks_count", 7))
        ):
            overrides[place].key = key.encode()
            if isinstance(value, int):
                overrides[place].tag, overrides[place].value.val_i64 = 0, value
            else:
                overrides[place].tag = 3
                overrides[place].value.val_str = value.encode()
        params.kv_overrides = ctypes.cast(overrides, type(params.kv_overrides))
    with library.captured_log() as said:
        code = lib.llama_model_quantize(
            str(source).encode(), str(out).encode(), ctypes.byref(params)
        )
    assert code == 0, "".join(said)
    return out


def model_at(place: Path) -> Adopted:
    """What a file or a folder is recognised as."""
    model = adoptable(str(place), registry.runtimes())
    assert model is not None
    return model


def described(place: Path, out: Path) -> dict[str, Any]:
    """What the job of an adoption says of it."""
    return dict(
        describe(Silent(), files=[str(path) for path in model_at(place).files], out=str(out))
    )
