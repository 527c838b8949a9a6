"""Quantized checkpoints as other implementations pack and read them, beside what is read here.

    python benchmarks/quantized_sources.py --scratch FOLDER

AWQ is packed by AutoAWQ's own WQLinear_GEMM and unpacked by its dequantize_gemm; compressed-tensors
is packed by its own helpers; GPTQ (act-order too), FP8 in blocks and compressed-tensors, packed
after the published layouts as in the tests, are read by llama.cpp's converter; NF4 and FP4 are
packed and read by bitsandbytes on the CPU; GPTQ of 3 bits, which llama.cpp does not read, is packed
and read by AutoRound. pip downloads all five into the scratch folder; torch and transformers must
be there. A case that another implementation does not read is null. The last
line is one JSON object: the largest difference of a weight, by case.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer import source, unpacked
from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import to_float32
from tests.support.make_checkpoint import tiny_shape, write_tiny
from tests.support.quantized_checkpoints import by_rows, compressed, fp8, gptq, grouped, write

AWQ, COMPRESSED = "autoawq==0.2.9", "compressed-tensors==0.20.0"
BITSANDBYTES, AUTO_ROUND = "bitsandbytes==0.50.2", "auto-round==0.16.1"
GROUP = 32
CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
from conversion.qwen import Qwen3Model
# Only the weights are looked at.
Qwen3Model.set_vocab = lambda self: None
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""

Parts = dict[str, np.ndarray[Any, Any]]
Quantize = Callable[[str, np.ndarray[Any, Any]], tuple[Parts, np.ndarray[Any, Any]]]


def module(name: str, path: Path) -> Any:
    """A module by its file, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def by_autoawq(folder: Path) -> Quantize:
    """AutoAWQ's packing and unpacking; the modules around them want engines that nothing here
    uses."""
    for name in ("awq", "awq.utils", "awq.modules", "awq.modules.linear"):
        sys.modules[name] = types.ModuleType(name)
    beside: Any = types.ModuleType("awq.utils.utils")
    beside.get_best_device = lambda: "cpu"
    sys.modules["awq.utils.utils"] = beside
    module("awq.utils.module", folder / "awq" / "utils" / "module.py")
    packing = module("awq.utils.packing_utils", folder / "awq" / "utils" / "packing_utils.py")
    layers = module("awq.modules.linear.gemm", folder / "awq" / "modules" / "linear" / "gemm.py")

    def of(name: str, weight: np.ndarray[Any, Any]) -> tuple[Parts, np.ndarray[Any, Any]]:
        order = np.arange(weight.shape[1]) // GROUP
        numbers, zeros, scales = grouped(weight, 4, GROUP, False, order)
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        exact = (numbers - zeros[order].T) * scales.astype(np.float32)[order].T
        linear.weight.data = torch.from_numpy(exact.astype(np.float32))
        made = layers.WQLinear_GEMM.from_linear(
            linear,
            4,
            GROUP,
            scales=torch.from_numpy(scales.astype(np.float32)),
            zeros=torch.from_numpy(zeros.astype(np.float32)),
        )
        parts = {part: getattr(made, part).numpy() for part in ("qweight", "qzeros", "scales")}
        read = packing.dequantize_gemm(made.qweight, made.qzeros, made.scales.float(), 4, GROUP)
        return parts, np.ascontiguousarray(read.numpy().T)

    return of


def by_compressed_tensors(folder: Path, bits: int) -> Quantize:
    """The packing of compressed-tensors, zero points along outputs."""
    path = folder / "compressed_tensors" / "compressors" / "pack_quantized" / "helpers.py"
    helpers = module("compressed_tensors_helpers", path)
    half = 1 << (bits - 1)

    def packed(values: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
        signed = torch.from_numpy((values - half).astype(np.int8))
        words: np.ndarray[Any, Any] = helpers.pack_to_int32(signed, bits, axis).numpy()
        return words

    def of(name: str, weight: np.ndarray[Any, Any]) -> tuple[Parts, np.ndarray[Any, Any]]:
        order = np.arange(weight.shape[1]) // GROUP
        numbers, zeros, scales = grouped(weight, bits, GROUP, False, order)
        parts = {
            "weight_packed": packed(numbers, 1),
            "weight_zero_point": packed(np.ascontiguousarray(zeros.T), 0),
            "weight_scale": np.ascontiguousarray(scales.T),
            "weight_shape": np.array(weight.shape, np.int64),
        }
        wanted = (numbers - zeros[order].T) * scales.astype(np.float32)[order].T
        return parts, wanted.astype(np.float32)

    return of


def by_auto_round(folder: Path, bits: int, *, second: bool) -> Quantize:
    """AutoRound's packing of GPTQ, and what its layer multiplies by; `second`: as gptq_v2. The
    modules around it want more than is used here."""
    names = ("auto_round", "auto_round.utils", "auto_round_extension", "auto_round_extension.torch")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    beside: Any = sys.modules["auto_round.utils"]
    beside.get_packing_device = lambda device=None: "cpu"
    module("auto_round.utils.bit_packing", folder / "auto_round" / "utils" / "bit_packing.py")
    layers = folder / "auto_round_extension" / "torch"
    own = module("auto_round_extension.torch.qlinear_torch", layers / "qlinear_torch.py")
    if not second:
        own = module("auto_round_extension.torch.qlinear_torch_zp", layers / "qlinear_torch_zp.py")

    def of(name: str, weight: np.ndarray[Any, Any]) -> tuple[Parts, np.ndarray[Any, Any]]:
        outputs, inputs = weight.shape
        order = np.arange(inputs) // GROUP
        numbers, zeros, scales = grouped(weight, bits, GROUP, False, order)
        exact = (numbers - zeros[order].T) * scales.astype(np.float32)[order].T
        linear = torch.nn.Linear(inputs, outputs, bias=False)
        linear.weight.data = torch.from_numpy(exact.astype(np.float32))
        made = own.QuantLinear(bits, GROUP, inputs, outputs, False)
        steps, middles = (torch.from_numpy(part.T.astype(np.float32)) for part in (scales, zeros))
        made.pack(linear, steps, middles)
        parts = {part: getattr(made, part).numpy() for part in ("qweight", "qzeros", "scales")}
        # Its product is of 16 bits where the scales are.
        made.scales = made.scales.float()
        read = made(torch.eye(inputs)).detach().numpy()
        return {**parts, "g_idx": order.astype(np.int32)}, np.ascontiguousarray(read.T)

    return of


def by_bitsandbytes(folder: Path, kind: str, double: bool) -> Quantize:
    """The numbers of bitsandbytes on the CPU, as it saves them and as it reads them again."""
    sys.path.insert(0, str(folder))
    functional = importlib.import_module("bitsandbytes.functional")

    def of(name: str, weight: np.ndarray[Any, Any]) -> tuple[Parts, np.ndarray[Any, Any]]:
        numbers, state = functional.quantize_4bit(
            torch.from_numpy(weight), blocksize=64, quant_type=kind, compress_statistics=double
        )
        read = functional.dequantize_4bit(numbers, state)
        saved = state.as_dict(packed=True)
        parts = {f"weight.{key}": value.numpy() for key, value in saved.items()}
        return {"weight": numbers.numpy(), **parts}, np.ascontiguousarray(read.numpy())

    return of


def difference(wanted: dict[str, np.ndarray[Any, Any]], read: dict[str, Any]) -> float:
    """The largest over all tensors."""
    assert wanted.keys() <= read.keys()
    return max(float(np.abs(read[name] - values).max()) for name, values in wanted.items())


def ours(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor as it is read here."""
    opened = Checkpoint.open(folder)
    return {name: to_float32(opened.array(name)) for name in opened.tensors}


def by_llama_cpp(peer: Path, folder: Path, scratch: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every matrix of the layers as llama.cpp's converter reads it, under official names."""
    out = scratch / f"{folder.name}.gguf"
    options = [str(folder), "--outtype", "f32", "--outfile", str(out)]
    subprocess.run(
        [sys.executable, "-c", CONVERT, str(peer), *options], check=True, capture_output=True
    )
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    found = {}
    for tensor in gguf.GGUFReader(out).tensors:
        _, _, rest = tensor.name.partition(".")
        layer, _, kind = rest.removesuffix(".weight").partition(".")
        if kind in names:
            found[f"model.layers.{layer}.{names[kind]}.weight"] = np.array(tensor.data)
    return found


def compressed_config(bits: int) -> dict[str, Any]:
    """The description in config.json."""
    weights = {"num_bits": bits, "group_size": GROUP, "type": "int", "strategy": "group"}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }


def scaled_config(form: str, kind: str) -> dict[str, Any]:
    """The description of 8 bits with a scale for every row."""
    weights = {"num_bits": 8, "type": kind, "strategy": "channel", "symmetric": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    scratch = parser.parse_args().scratch.resolve()
    plain = scratch / "plain"
    if not plain.is_dir():
        write_tiny(plain, shape=tiny_shape("qwen3", hidden=128, intermediate=256), dtype="F32")
    told = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    gemm = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}
    packers = unpacked(scratch, COMPRESSED)
    written: dict[str, tuple[Any, dict[str, Any]]] = {
        "awq by AutoAWQ": (by_autoawq(unpacked(scratch, AWQ)), gemm),
        "4 bits by compressed-tensors": (by_compressed_tensors(packers, 4), compressed_config(4)),
        "3 bits by compressed-tensors": (by_compressed_tensors(packers, 3), compressed_config(3)),
    }
    rounded = unpacked(scratch, AUTO_ROUND)
    written |= {
        f"gptq of 3 bits by AutoRound{', gptq_v2' if second else ''}": (
            by_auto_round(rounded, 3, second=second),
            told | {"bits": 3, "checkpoint_format": "gptq_v2" if second else "gptq"},
        )
        for second in (False, True)
    }
    saved = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    blocks = unpacked(scratch, BITSANDBYTES)
    written |= {
        f"{kind} by bitsandbytes{doubly}": (by_bitsandbytes(blocks, kind, bool(doubly)), saved)
        for kind in ("nf4", "fp4")
        for doubly in ("", ", doubly quantized")
    }
    read: dict[str, tuple[Any, dict[str, Any]]] = {
        "gptq read by llama.cpp": (gptq(4, GROUP, symmetric=False), told),
        "gptq of 8 bits read by llama.cpp": (gptq(8, GROUP), told | {"bits": 8}),
        "gptq of 3 bits read by llama.cpp": (gptq(3, GROUP), told | {"bits": 3}),
        "gptq of 2 bits read by llama.cpp": (gptq(2, GROUP), told | {"bits": 2}),
        "8 bits of compressed-tensors read by llama.cpp": (
            by_rows(np.int8),
            scaled_config("int-quantized", "int"),
        ),
        "fp8 of compressed-tensors read by llama.cpp": (
            by_rows(ml_dtypes.float8_e4m3fn),
            scaled_config("float-quantized", "float"),
        ),
        "gptq with act-order read by llama.cpp": (
            gptq(4, GROUP, act=True),
            told | {"desc_act": True},
        ),
        "fp8 read by llama.cpp": (
            fp8((128, 128)),
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
        ),
        "compressed-tensors read by llama.cpp": (
            compressed(4, GROUP, True),
            compressed_config(4),
        ),
    }
    peer = source(scratch)
    rows: dict[str, float | None] = {}
    for number, (case, way) in enumerate({**written, **read}.items()):
        folder = scratch / f"case-{number}"
        wanted = write(plain, folder, *way, dtype="float32")
        if case in read:
            try:
                wanted = by_llama_cpp(peer, folder, scratch)
            except subprocess.CalledProcessError as error:
                rows[case] = None
                print(f"{case}: {error.stderr.decode().strip().splitlines()[-1]}")
                continue
        rows[case] = largest = difference(wanted, ours(folder))
        print(f"{case}: {largest:g}")
    print(json.dumps({"largest_difference": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
