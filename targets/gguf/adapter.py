"""An adapter as GGUF, which llama.cpp adds while it computes.

Layout after llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp: of every matrix
`NAME.lora_a` (rank, columns) and `NAME.lora_b` (rows, rank) in float32, and one `alpha` for all,
which the engine divides by each matrix's rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf

from packager.checkpoint import Checkpoint, TensorInfo, low_rank
from packager.checkpoint.adapter import LowRank
from packager.checkpoint.low_rank import LowRanks
from packager.errors import PackError, usage
from packager.json_values import JsonObject
from packager.runtime import Report
from targets.gguf.arch import architecture
from targets.gguf.kernels import kernels, row_bytes
from targets.gguf.metadata import KeyValues
from targets.gguf.shards import shards
from targets.gguf.tensors import OutTensor, Part, place
from targets.gguf.writer import write_gguf

FILE = "adapter.gguf"
_TYPE = "F32"


def build(report: Report, *, checkpoint: str, out: str) -> JsonObject:
    """A job, see packager.package.adapters. Raises PackError (usage) for what llama.cpp cannot
    add."""
    base, adapter, added = low_rank.of_folder(Path(checkpoint))
    path = Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, base, added, adapter.folder.name, report)
    size = path.stat().st_size
    return {"artifact_bytes": size, "rank": added.rank, "matrices": len(added.matrices)}


def write(path: Path, base: Checkpoint, added: LowRanks, name: str, report: Report) -> None:
    """Write the matrices of an adapter for a base into the file `path`; `name` is what the file
    calls itself."""
    converter = architecture(base.config)
    stored = {tensor: info.shape for tensor, info in base.tensors.items()}
    alpha = _alpha(added)
    sources: dict[str, TensorInfo] = {}
    tensors: list[OutTensor] = []
    for tensor, row, part in _places(converter.tensors(stored), added):
        down, up = row.down, row.up
        sources |= {down.name: down, up.name: up}
        factor = 1.0 if alpha else row.scaling
        a = OutTensor(f"{tensor.name}.lora_a", down.shape, (Part(down.name, 0, down.shape[0]),))
        b = OutTensor(
            f"{tensor.name}.lora_b",
            (part.rows, up.shape[1]),
            (replace(part, source=up.name),),
            change=None if factor == 1 else _times(factor),
        )
        tensors += [a, b]
    typed = list(place(tensors, dict.fromkeys((one.name for one in tensors), _TYPE), row_bytes))
    (file,) = shards(path, _keys(converter.gguf_name, name, alpha), typed)
    write_gguf([file], sources, kernels(), 1, report)


def _places(tensors: list[OutTensor], added: LowRanks) -> Iterator[tuple[OutTensor, LowRank, Part]]:
    """Each tensor of the GGUF that an adapter adds to, in the adapter's order, and the rows of the
    checkpoint's matrix that it holds."""
    holding: dict[str, list[OutTensor]] = {}
    for tensor in tensors:
        for part in tensor.parts:
            holding.setdefault(part.source.removesuffix(low_rank.WEIGHT), []).append(tensor)
    for layer, row in added.matrices.items():
        for tensor in holding.get(layer, ()):
            if len(tensor.parts) != 1 or tensor.change is not None:
                raise _cannot(layer)
            yield tensor, row, tensor.parts[0]
        if layer not in holding:
            raise _cannot(layer)


def _cannot(layer: str) -> PackError:
    return usage(
        f"llama.cpp stores the layer {layer!r} in a form that no adapter can be added to.",
        "Build the whole model with --lora.",
    )


def _alpha(added: LowRanks) -> float:
    """What all matrices have in common; 0 where they have nothing, and the scale of each is
    multiplied into its second matrix."""
    alphas = {row.scaling * row.down.shape[0] for row in added.matrices.values()}
    return alphas.pop() if len(alphas) == 1 else 0.0


def _times(factor: float) -> Any:
    return lambda values: values * factor


def _keys(arch: str, name: str, alpha: float) -> KeyValues:
    writer = gguf.GGUFWriter(None, arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_name(gguf.Metadata.id_to_title(name))
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return dict(writer.kv_data[0])
