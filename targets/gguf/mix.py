"""Which type each tensor gets: asked of the library by a dry run, never copied from its source.

The library is handed a sparse file that holds only the header of the model; in a dry run it decides
the type of every tensor from that and says so in its log.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import gguf

from packager.errors import bad_input, usage
from packager.scratch import temporary_folder
from targets.gguf import header, kernels, library
from targets.gguf import overrides as given
from targets.gguf.metadata import KeyValues
from targets.gguf.overrides import Overrides, check_importances
from targets.gguf.presets import PURE, Preset
from targets.gguf.tensors import OutTensor, padded, place

_TENSOR = re.compile(
    r"\[\s*\d+/\s*\d+\]\s+(?P<name>\S+)\s+- \[.*?\], type =\s*(?P<type>\w+),\s+size ="
    r".*?(?:\((?P<new>\w+)\))?\s*$",
    re.M,
)
_BY_LOWER = {kind.name.lower(): kind.name for kind in gguf.GGMLQuantizationType}
_SMALLEST_BLOCK = 32


def stored_type(tensor: OutTensor, preset: Preset, dtype: str) -> str:
    """The type before quantization: float32 where llama.cpp insists, else what the checkpoint
    holds.

    The 16-bit presets and Q8_0 need no quantizer in llama.cpp: its converter writes them.
    """
    if tensor.f32:
        return "F32"
    return preset.name if preset.name in PURE else dtype


def tensor_types(
    network: KeyValues,
    tensors: Sequence[OutTensor],
    preset: Preset,
    dtype: str,
    overrides: Overrides | None = None,
    imatrix: bool = False,
) -> dict[str, str]:
    """The ggml type of every tensor.

    `dtype` is what the checkpoint stores (BF16, F16, F32). Raises PackError: usage where the preset
    needs an importance matrix or an override is wrong, bad input where the rows of a tensor fit no
    block.
    """
    for tensor in tensors:
        if (
            not tensor.f32
            and tensor.columns % _SMALLEST_BLOCK
            and preset.name not in ("F16", "BF16")
        ):
            raise bad_input(
                f"Rows of {tensor.parts[0].source!r} have {tensor.columns} elements, which no "
                f"block of {_SMALLEST_BLOCK} divides.",
                "Take the preset F16 or BF16 for this checkpoint.",
            )
    if preset.imatrix and not imatrix:
        raise usage(
            f"{preset.name} needs an importance matrix.",
            "Give one with --imatrix, a text with --calibration, or take Q2_K, Q3_K_S or IQ3_S, "
            "which work without.",
        )
    types = {tensor.name: stored_type(tensor, preset, dtype) for tensor in tensors}
    chosen = overridden(tensors, overrides or {})
    if not imatrix:
        check_importances(chosen)
    if preset.name not in PURE:
        if library.installed():
            types |= dry_run(network, tensors, types, preset, imatrix)
        elif (
            preset.name == "Q4_0"
            and {"token_embd.weight", "output.weight"} & types.keys() <= chosen.keys()
        ):
            # Without an engine: Q4_0 mixes in other types for these two alone, and both are named.
            types |= {tensor.name: "Q4_0" for tensor in tensors if not tensor.f32}
        else:
            raise library.missing()
    return types | chosen


def overridden(tensors: Sequence[OutTensor], overrides: Overrides) -> dict[str, str]:
    """The tensors that the patterns reach, the first pattern counting. Raises PackError (usage) for
    what cannot be."""
    quantizable = [tensor for tensor in tensors if not tensor.f32]
    return given.overridden(quantizable, overrides, kernels.block, tensors[-1].name)


def dry_run(
    network: KeyValues,
    tensors: Sequence[OutTensor],
    stored: Mapping[str, str],
    preset: Preset,
    imatrix: bool = False,
) -> dict[str, str]:
    """The library's own decision for tensors that are stored as `stored`; with an importance matrix
    it decides otherwise."""
    lib = library.llama()
    typed = list(place(tensors, dict(stored), kernels.row_bytes))
    params = lib.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[preset.file_type])
    params.dry_run = True
    params.nthread = 1
    weights = _some_imatrix(lib) if imatrix else None
    if weights is not None:
        params.imatrix = weights
    with temporary_folder() as folder:
        path = folder / "header.gguf"
        with path.open("wb") as file:
            file.write(header.encode(network, typed))
            file.truncate(file.tell() + (typed[-1].offset + padded(typed[-1].nbytes)))
        with library.captured_log() as said:
            code = lib.llama_model_quantize(
                str(path).encode(), str(path.with_suffix(".out")).encode(), params
            )
    text = "".join(said)
    types = {
        match["name"]: _BY_LOWER[(match["new"] or match["type"]).lower()]
        for match in _TENSOR.finditer(text)
    }
    absent = [tensor.name for tensor in tensors if tensor.name not in types]
    if code or absent:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "no word")
        raise bad_input(
            f"llama.cpp {library.version()} cannot plan {preset.name} for this shape: "
            f"{last.strip()}",
            "Check config.json, or update llama-cpp-python.",
        )
    return types


def _some_imatrix(lib: Any) -> Any:
    """An importance matrix of one entry: a dry run asks whether there is one, not what it holds."""
    data = (ctypes.c_float * 1)(1.0)
    entries = (lib.llama_model_imatrix_data * 2)()
    entries[0].name, entries[0].data, entries[0].size = b"none", data, 1
    return entries
