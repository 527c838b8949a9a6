"""The kinds of input that belong to checkpoints and adapters: genuine files, their mutants, and the
code of ours that reads them."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

from tests.attack import mutate
from tests.attack.kind import Kind, Mutate
from tests.attack.packages import MORE


def _checkpoint(name: str, mutant: Mutate, model_type: str = "qwen3", **more: Any) -> Kind:
    """One file of a checkpoint, read by all that opens checkpoints."""

    def seed(folder: Path) -> bytes:
        from tests.support.make_checkpoint import write_tiny

        write_tiny(folder / "checkpoint", model_type, hidden=16, intermediate=16, vocab=320, **more)
        path = folder / "checkpoint" / name
        if name in SLOW_TOKENIZER:
            _in_parts(folder / "checkpoint")
        elif not path.exists():
            path.write_bytes(MORE[name])
        return path.read_bytes()

    def read(folder: Path, data: bytes) -> None:
        from packager.checkpoint import Checkpoint
        from packager.quality.reference_tokenizer import reference_tokenizer
        from packager.sources.hub_variant import described
        from targets.gguf.tokenizer import read_vocabulary

        checkpoint = folder / "checkpoint"
        (checkpoint / name).write_bytes(data)
        if name == "config.json":
            described(checkpoint)
        opened = Checkpoint.open(checkpoint)
        for tensor in opened.tensors:
            opened.raw(tensor)
        if "token" in name or name in SLOW_TOKENIZER:
            reference_tokenizer(opened)
            read_vocabulary(checkpoint, opened.config, opened.tokenizer_config)

    return Kind(name if model_type == "qwen3" else f"{name} ({model_type})", seed, mutant, read, 4)


SLOW_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json")


def _in_parts(checkpoint: Path) -> None:
    """tokenizer.json as the files that stood in its place before it."""
    whole = json.loads((checkpoint / "tokenizer.json").read_bytes())
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = "".join(f"{left} {right}\n" for left, right in whole["model"]["merges"])
    (checkpoint / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (checkpoint / "added_tokens.json").write_text(json.dumps(added))


def header_mutant(random_: random.Random, data: bytes) -> bytes:
    """The JSON changed and the length with it, or any bytes of the file."""
    if random_.randrange(3) == 0:
        return mutate.of_bytes(random_, data)
    (length,) = struct.unpack("<Q", data[:8])
    text = mutate.of_json(random_, data[8 : 8 + length])
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def read_header_of(folder: Path, data: bytes) -> None:
    from packager.checkpoint.header import read_header

    (folder / "model.safetensors").write_bytes(data)
    read_header(folder / "model.safetensors")


def seed_header(folder: Path) -> bytes:
    from tests.support.make_checkpoint import write_tiny

    return (
        write_tiny(folder / "c", hidden=16, intermediate=16, vocab=320) / "model.safetensors"
    ).read_bytes()


def _adapter(name: str, mutant: Mutate) -> Kind:
    """One file of a LoRA adapter, read and merged into a base."""

    def seed(folder: Path) -> bytes:
        import numpy as np
        from safetensors.numpy import save_file

        from tests.support.make_checkpoint import write_tiny

        base = folder / "base"
        write_tiny(base, hidden=16, intermediate=16, vocab=320)
        lora = folder / "adapter"
        lora.mkdir()
        (lora / "adapter_config.json").write_bytes(_ADAPTER)
        rows = {}
        for layer in range(2):
            stem = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_"
            rows[f"{stem}A.weight"] = np.ones((4, 16), np.float32)
            rows[f"{stem}B.weight"] = np.ones((16, 4), np.float32)
        save_file(rows, lora / "adapter_model.safetensors")
        return (lora / name).read_bytes()

    def read(folder: Path, data: bytes) -> None:
        from packager.checkpoint import Checkpoint
        from packager.checkpoint.adapter import Adapter
        from packager.checkpoint.composed import compose
        from packager.checkpoint.numbers import compute

        (folder / "adapter" / name).write_bytes(data)
        compose(folder / "made", folder / "base", [Adapter.open(folder / "adapter")])
        for tensor in Checkpoint.open(folder / "made").tensors.values():
            if tensor.made is not None:
                compute(tensor)

    return Kind(f"{name} of an adapter", seed, mutant, read, 4)


def _quantized(name: str, method: str) -> Kind:
    """config.json or the weights of a checkpoint that is quantized already, read to the last
    number."""

    def seed(folder: Path) -> bytes:
        from tests.support import quantized_checkpoints as quantized
        from tests.support.make_checkpoint import write_tiny

        plain = write_tiny(
            folder / "plain", "qwen2", layers=1, hidden=64, intermediate=64, vocab=320
        )
        ways: dict[str, tuple[Any, dict[str, Any]]] = {
            "gptq": (quantized.gptq(4, 32), {"bits": 4, "group_size": 32}),
            "awq": (quantized.awq(64), {"bits": 4, "group_size": 64, "version": "gemm"}),
            "fp8": (quantized.fp8((32, 32)), {"weight_block_size": [32, 32]}),
            "compressed-tensors": (quantized.compressed(4, 32, False), _COMPRESSED),
        }
        quantize, said = ways[method]
        quantized.write(plain, folder / "checkpoint", quantize, {"quant_method": method, **said})
        return (folder / "checkpoint" / name).read_bytes()

    def mutant(random_: random.Random, data: bytes) -> bytes:
        if name != "config.json":
            return header_mutant(random_, data)
        config = json.loads(data)
        changed = mutate.of_json(random_, json.dumps(config["quantization_config"]).encode())
        try:
            return json.dumps({**config, "quantization_config": json.loads(changed)}).encode()
        except (ValueError, RecursionError):
            return changed

    def read(folder: Path, data: bytes) -> None:
        from packager.checkpoint import Checkpoint
        from packager.checkpoint.numbers import compute

        (folder / "checkpoint" / name).write_bytes(data)
        for tensor in Checkpoint.open(folder / "checkpoint").tensors.values():
            if tensor.made is not None:
                compute(tensor)

    return Kind(f"{name} of {method}", seed, mutant, read, 6)


def _embedder(name: str) -> Kind:
    """One of the files by which Sentence Transformers know an embedder."""

    def seed(folder: Path) -> bytes:
        from tests.support.retrieval import write_embedder

        return (write_embedder(folder / "checkpoint") / name).read_bytes()

    def read(folder: Path, data: bytes) -> None:
        from packager.checkpoint import Checkpoint
        from packager.checkpoint.retrieval import conventions, query_text

        (folder / "checkpoint" / name).write_bytes(data)
        query_text(conventions(Checkpoint.open(folder / "checkpoint")), "what").encode()

    return Kind(name, seed, mutate.of_json, read, 20)


_ADAPTER = json.dumps(
    {
        "peft_type": "LORA",
        "base_model_name_or_path": "Qwen/Qwen3-0.6B",
        "revision": None,
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {r"layers\.1\.mlp\.up_proj": 4},
        "alpha_pattern": {"up_proj": 3},
        "use_dora": False,
        "init_lora_weights": True,
    }
).encode()
_COMPRESSED = {
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "weights": {"num_bits": 4, "group_size": 32, "strategy": "group", "symmetric": False}
        }
    },
}

CHECKPOINTS: tuple[Kind, ...] = (
    Kind("safetensors header", seed_header, header_mutant, read_header_of),
    _checkpoint("config.json", mutate.of_json),
    _checkpoint("config.json", mutate.of_json, "qwen2"),
    _checkpoint("tokenizer.json", mutate.of_json),
    _checkpoint("tokenizer_config.json", mutate.of_json),
    _checkpoint("generation_config.json", mutate.of_json),
    _checkpoint("model.safetensors.index.json", mutate.of_json, shards=2),
    _checkpoint("chat_template.json", mutate.of_json),
    _checkpoint("vocab.json", mutate.of_json),
    _checkpoint("merges.txt", mutate.of_text),
    _checkpoint("added_tokens.json", mutate.of_json),
    _adapter("adapter_config.json", mutate.of_json),
    _adapter("adapter_model.safetensors", header_mutant),
    *(
        _quantized(name, method)
        for method in ("gptq", "awq", "fp8", "compressed-tensors")
        for name in ("config.json", "model.safetensors")
    ),
    *map(_embedder, ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")),
)
"""What a checkpoint or an adapter is made of."""
