"""What a recipe's settings mean: how the model builder stores each matrix of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal

from packager.errors import bad_input
from packager.json_values import JsonObject, at_or_none
from packager.recipe import GROUP, PUBLISHED_GROUP, REPACK

Method = Literal["rtn", "k_quant"]

PROVIDERS = ("cpu", "cuda", "dml", "webgpu")
PRECISIONS: Mapping[str, int] = {"fp32": 4, "fp16": 2}
"""Bytes per number of norms, biases, scales, rotary tables and the cache."""

_BLOCKS = (16, 32, 64, 128, 256)

SENSITIVE = ("qkv_proj", "v_proj", "down_proj")
"""The matrices of a layer that lose most of what a model knows, by the model builder's names."""


@lru_cache(maxsize=64)
def sensitive_layers(layers: int) -> frozenset[int]:
    """Which of so many layers keep `SENSITIVE` in more bits: the first and the last eighth, and
    every third between.

    Source: `mixed_layers` of the model builder of onnxruntime-genai 0.18, after `use_more_bits` of
    llama.cpp's src/llama-quant.cpp.
    """
    first, last = layers / 8, 7 * layers / 8
    return frozenset(
        layer
        for layer in range(layers)
        if layer < first or layer >= last or (layer - round(first)) % 3 == 2
    )


@dataclass(frozen=True, slots=True)
class Quantization:
    """Weights in blocks along a row: `block` of them share a scale, and a zero point where
    `zero_points`.

    `sensitive_bits`: of the matrices `SENSITIVE` in the layers of `sensitive_layers`; None: `bits`
    like the others.
    """

    bits: int
    head_bits: int
    method: Method
    block: int
    zero_points: bool
    accuracy_level: int
    sensitive_bits: int | None = None

    def bits_of(self, layers: int, layer: int | None, matrix: str) -> int:
        """Bits of a matrix: of layer `layer` out of so many, by the model builder's name of it, or
        of the output matrix where `layer` is None."""
        if layer is None:
            return self.head_bits
        if self.sensitive_bits and matrix in SENSITIVE and layer in sensitive_layers(layers):
            return self.sensitive_bits
        return self.bits

    def layers_by_bits(self, layers: int, matrix: str) -> tuple[tuple[int, int], ...]:
        """Bits, and how many of so many layers have that matrix in as many."""
        if not self.sensitive_bits or matrix not in SENSITIVE:
            return ((self.bits, layers),)
        more = len(sensitive_layers(layers))
        return ((self.bits, layers - more), (self.sensitive_bits, more))

    def as_dict(self) -> JsonObject:
        """JSON form; what was not asked for is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def blocks(self, columns: int) -> int:
        """Blocks of one row; the last one is padded."""
        return ceil(columns / self.block)

    def matrix_bytes(self, rows: int, columns: int, bits: int, scale_bytes: int) -> int:
        """Bytes of one matrix, its scales and zero points."""
        count = rows * self.blocks(columns)
        zero_points = ceil(count * bits / 8) if self.zero_points else 0
        return count * self.block * bits // 8 + count * scale_bytes + zero_points


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one recipe, as recipes.toml and the manifest hold them.

    `repack`: the matrices of the layers keep the checkpoint's groups of 4 bits; `repack_group`: the
    columns of such a group, where that is known.
    """

    provider: str
    precision: str
    quantization: Quantization | None
    repack: bool = False
    repack_group: int | None = None
    adapter_inputs: bool = False
    """Whether the graph has inputs for the matrices of an adapter."""

    @property
    def layers(self) -> Quantization | None:
        """How the matrices of the layers are stored."""
        if not self.repack:
            return self.quantization
        level = self.quantization.accuracy_level if self.quantization else 0
        return Quantization(4, 4, "rtn", self.repack_group or PUBLISHED_GROUP, False, level)

    @property
    def number_bytes(self) -> int:
        """Bytes per number of everything that is not quantized."""
        return PRECISIONS[self.precision]

    @property
    def kv(self) -> str:
        """The cache has the precision of the activations."""
        return {"fp32": "f32", "fp16": "f16"}[self.precision]

    def as_dict(self) -> JsonObject:
        """JSON form."""
        fields = None if self.quantization is None else self.quantization.as_dict()
        taken = {REPACK: True} if self.repack else {}
        group = {GROUP: self.repack_group} if self.repack_group else {}
        inputs = {"adapter_inputs": True} if self.adapter_inputs else {}
        return {
            "provider": self.provider,
            "precision": self.precision,
            "quantization": fields,
            **taken,
            **group,
            **inputs,
        }


def parse(settings: Mapping[str, Any], where: str) -> Settings:
    """The settings of one recipe. Raises PackError (exit code 6) that names `where` and the key
    that is wrong."""

    def choice(table: Mapping[str, Any], key: str, allowed: tuple[Any, ...]) -> Any:
        value = table.get(key)
        if value not in allowed or type(value) is not type(allowed[0]):
            raise bad_input(
                f"{where}: {key} is {value!r}, not one of {', '.join(map(str, allowed))}."
            )
        return value

    def only(table: Mapping[str, Any], known: set[str]) -> None:
        unknown = sorted(set(table) - known)
        if unknown:
            raise bad_input(
                f"{where}: {unknown[0]!r} is not a known setting.",
                f"Known: {', '.join(sorted(known))}.",
            )

    only(settings, {"provider", "precision", "quantization", REPACK, GROUP, "adapter_inputs"})
    table = settings.get("quantization")
    quantization = None
    if table is not None:
        only(table, set(Quantization.__slots__))
        quantization = Quantization(
            bits=choice(table, "bits", (4, 8)),
            head_bits=choice(table, "head_bits", (4, 8)),
            method=choice(table, "method", ("rtn", "k_quant")),
            block=choice(table, "block", _BLOCKS),
            zero_points=choice(table, "zero_points", (False, True)),
            accuracy_level=choice(table, "accuracy_level", (0, 1, 2, 3, 4)),
            sensitive_bits=None
            if table.get("sensitive_bits") is None
            else choice(table, "sensitive_bits", (8,)),
        )
        if quantization.method == "k_quant" and not quantization.zero_points:
            raise bad_input(
                f"{where}: k_quant always keeps zero points, so zero_points cannot be false."
            )
    return Settings(
        choice(settings, "provider", PROVIDERS),
        choice(settings, "precision", tuple(PRECISIONS)),
        quantization,
        choice(settings, REPACK, (True,)) if REPACK in settings else False,
        at_or_none(settings, GROUP, int),
        settings.get("adapter_inputs") is True,
    )
