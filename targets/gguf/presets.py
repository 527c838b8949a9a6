"""The quantization presets of llama.cpp that make sense on a device, best quality first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packager.errors import usage
from packager.json_values import JsonObject
from packager.names import did_you_mean


@dataclass(frozen=True, slots=True)
class Preset:
    """One of llama.cpp's file types. `imatrix`: its kernels refuse to work without an importance
    matrix."""

    name: str
    summary: str
    imatrix: bool = False

    @property
    def file_type(self) -> str:
        """The name of llama.cpp's file type, as the gguf package spells it."""
        return f"MOSTLY_{self.name}"

    @property
    def grade(self) -> str:
        """The class of its losses, by the bits in its name; see
        packager/quality/thresholds.toml."""
        return f"{re.findall('[0-9]+', self.name)[0]}-bit"


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("BF16", "bfloat16, the weights as they were trained"),
        Preset("F16", "half precision, without loss where the weights stay below 65504"),
        Preset("Q8_0", "8 bits, blocks of 32; hardly distinguishable from 16 bits"),
        Preset("Q6_K", "6 bits, blocks of 256"),
        Preset("Q5_K_M", "5 bits, the more sensitive tensors in 6"),
        Preset("Q5_K_S", "5 bits"),
        Preset("Q5_1", "5 bits, blocks of 32 with a minimum"),
        Preset("Q5_0", "5 bits, blocks of 32"),
        Preset("Q4_K_M", "4 bits, the more sensitive tensors in 6: the usual choice"),
        Preset("Q4_K_S", "4 bits, some sensitive tensors in 5"),
        Preset("Q4_1", "4 bits, blocks of 32 with a minimum"),
        Preset("IQ4_NL", "4 bits on a fixed non-linear scale, blocks of 32"),
        Preset("IQ4_XS", "4.25 bits on a fixed non-linear scale, blocks of 256"),
        Preset("Q4_0", "4 bits, blocks of 32; the fastest to repack for Arm and AVX kernels"),
        Preset("Q3_K_L", "3 bits, the more sensitive tensors in 5"),
        Preset("Q3_K_M", "3 bits, the more sensitive tensors in 4 and 5"),
        Preset("IQ3_M", "3.7 bits from a codebook"),
        Preset("IQ3_S", "3.4 bits from a codebook"),
        Preset("Q3_K_S", "3 bits"),
        Preset("IQ3_XS", "3.3 bits from a codebook", imatrix=True),
        Preset("IQ3_XXS", "3.1 bits from a codebook", imatrix=True),
        Preset("Q2_K", "2 bits, the more sensitive tensors in 3 and 4"),
        Preset("IQ2_M", "2.7 bits from a codebook", imatrix=True),
        Preset("IQ2_S", "2.5 bits from a codebook", imatrix=True),
        Preset("IQ2_XS", "2.3 bits from a codebook", imatrix=True),
        Preset("IQ2_XXS", "2.1 bits from a codebook", imatrix=True),
    )
}

PROJECTOR = "mmproj.gguf"
"""The file of the vision tower, beside the text model's; chosen by name, never by order."""

PURE = ("BF16", "F16", "Q8_0")
"""Presets that give every quantizable tensor the same type: no mix to ask the library for."""

IMATRIX_DECIDES = ("Q5_0", "IQ4_NL", "IQ4_XS", "Q4_0")
"""Presets whose mix differs when there is an importance matrix, and that work without one too."""

TENSOR_TYPES = (
    *(
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q6_K",
        "Q5_K",
        "Q5_1",
        "Q5_0",
        "Q4_K",
        "Q4_1",
        "Q4_0",
        "IQ4_NL",
        "IQ4_XS",
    ),
    *("Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS"),
)
"""Types that a single tensor can be given: those that llama.cpp both quantizes to and computes with
on every device."""


def projector_type(name: str) -> str:
    """The type of the vision tower beside a text model in that preset: as the text in 16 bits, else
    8 bits, whose image embeddings stay within 1.3 % of the unquantized ones."""
    return name if name in ("F16", "BF16") else "Q8_0"


KV_BITS: dict[str, float] = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
"""Bits per element of the cache types; a block of 32 carries one half-precision scale."""

DEFAULT_KV = "f16"


def cache_type_of(settings: JsonObject) -> str:
    """The cache type that a session is asked for. Raises PackError (usage) for an unknown one."""
    kv = str(settings.get("kv") or DEFAULT_KV)
    if kv not in KV_BITS:
        raise usage(f"llama.cpp has no cache type {kv!r} here.", f"Known: {', '.join(KV_BITS)}.")
    return kv


def preset_of(name: str) -> Preset:
    """The preset of that name, case aside. Raises PackError (usage)."""
    preset = PRESETS.get(name) or PRESETS.get(name.upper())
    if preset is None:
        raise usage(
            f"llama.cpp has no preset {name!r}.{did_you_mean(name, PRESETS)}",
            f"Known: {', '.join(PRESETS)}.",
        )
    return preset
