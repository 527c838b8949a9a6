"""What the products of a graph are called: after the layer whose matrix they multiply by.

openvino-genai adds an adapter to the product whose name contains the layer's (lora/adapter.cpp,
LoRAWeightGetterDefault).
"""

from __future__ import annotations

from typing import Any

_WEIGHT = ".weight"
_PRODUCT = "MatMul"
_BETWEEN = ("Convert", "Multiply", "Subtract", "Reshape")
"""What stands between a stored matrix and the product: its dequantization."""


def product(node: Any) -> str | None:
    """`model.layers.0.mlp.up_proj/MatMul` for the product by that layer's matrix; None for any
    other operator, and for a product of two computed tensors."""
    if node.get_type_name() != _PRODUCT:
        return None
    source = node.input_value(1).get_node()
    while source.get_type_name() in _BETWEEN:
        source = source.input_value(0).get_node()
    name = str(source.get_friendly_name())
    if source.get_type_name() != "Constant" or not name.endswith(_WEIGHT):
        return None
    return f"{name.removesuffix(_WEIGHT)}/{_PRODUCT}"
