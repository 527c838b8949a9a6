"""Types that the user gives to single tensors: which tensors the patterns reach, and what cannot
be.

Imports no engine: the sizes of the catalogue's shapes are answered without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from packager.errors import usage
from packager.names import did_you_mean
from targets.gguf.presets import TENSOR_TYPES

Overrides = Mapping[str, str]
"""Regular expression searched in a tensor's name -> ggml type."""

ENDS = ("token_embd.weight", "output.weight")
"""The matrices of the vocabulary: llama-imatrix leaves them out unless it is told otherwise."""
_KERNELS_NEED = ("IQ2_XXS", "IQ2_XS")
_LIBRARY_NEEDS = (*_KERNELS_NEED, "IQ2_S", "IQ3_XXS")
"""Types that ggml's kernels, and those that llama.cpp's quantizer, refuse to make without
importances."""


class Named(Protocol):
    """A tensor of the GGUF."""

    @property
    def name(self) -> str:
        """Its name in the file."""

    @property
    def columns(self) -> int:
        """Elements of a row."""


def overridden(
    quantizable: Sequence[Named],
    overrides: Overrides,
    block: Callable[[str], tuple[int, int]],
    example: str,
) -> dict[str, str]:
    """The tensors that the patterns reach, the first pattern counting.

    `block` gives (elements, bytes) of a block of a type, `example` is a name for the error. Raises
    PackError (usage) for what cannot be.
    """
    chosen: dict[str, str] = {}
    for pattern, name in overrides.items():
        kind = name.upper()
        if kind not in TENSOR_TYPES:
            raise usage(
                f"A tensor cannot become {kind!r}.{did_you_mean(kind, TENSOR_TYPES)}",
                f"Known: {', '.join(TENSOR_TYPES)}.",
            )
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise usage(
                f"{pattern!r} is not a valid regular expression ({error}).",
                "For example: token_embd\\.weight",
            ) from None
        hits = [tensor for tensor in quantizable if expression.search(tensor.name)]
        if not hits:
            raise usage(
                f"No tensor that can be quantized matches {pattern!r}.",
                f"Names look like {example!r}.",
            )
        elements, _ = block(kind)
        for tensor in hits:
            if tensor.columns % elements:
                raise usage(
                    f"{kind} needs rows of a multiple of {elements} elements; "
                    f"{tensor.name!r} has {tensor.columns}."
                )
            chosen.setdefault(tensor.name, kind)
    return chosen


def check_importances(chosen: Mapping[str, str]) -> None:
    """Raise PackError (usage) for a type that takes an importance matrix, where there is none."""
    for name, kind in chosen.items():
        if needs_imatrix(name, kind):
            raise usage(
                f"{name!r} needs an importance matrix to become {kind}.",
                "Give one with --imatrix, or a text with --calibration.",
            )


def needs_imatrix(tensor: str, kind: str) -> bool:
    """Whether a tensor of that name cannot become that type without importances."""
    return kind in (_KERNELS_NEED if tensor in ENDS else _LIBRARY_NEEDS)
