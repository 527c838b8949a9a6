"""Whose matrix a constant is in a graph that openvino-genai made of a GGUF: it gives none a name.

The scales of a matrix are those of its blocks, to the bit, so by them its constant is found again.
Q4_0 and Q8_0 begin each block with its scale, as float16.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from packager.inspection.gguf_header import GgufTensor
from packager.json_values import JsonObject
from packager.shape import TensorSpec
from targets.gguf.arch import architecture
from targets.gguf.given import read_given

_SCALE_BYTES = 2


def name_constants(model: Any, path: Path, config: JsonObject, specs: Iterable[TensorSpec]) -> None:
    """Call the constants of an openvino.Model that was made of the GGUF at `path` by the
    checkpoint's names. What the reader left out, such as a norm of ones, names nothing."""
    converter, tensors = architecture(config), read_given(path).tensors
    names = defaultdict[str, list[str]](list)
    for spec in specs:
        tensor = tensors.get(converter.new_name(spec.name))
        if tensor is not None:
            names[_key(_told_by(path, tensor))].append(spec.name)
    for constant, values in _constants(model):
        same = names.get(_key(values))
        if same:
            # Equal tensors stand in the order of the layers. A tied embedding may stand twice.
            constant.set_friendly_name(same.pop(0) if len(same) > 1 else same[0])


def _told_by(path: Path, tensor: GgufTensor) -> npt.NDArray[Any]:
    """The scales of a quantized tensor, or all numbers of one that is not."""
    stored = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.nbytes,))
    if tensor.kind == gguf.GGMLQuantizationType.F32:
        return stored.view(np.float32)
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
    return np.ascontiguousarray(stored.reshape(-1, size)[:, :_SCALE_BYTES]).view(np.float16)


def _constants(model: Any) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
    """The constants that may be a tensor of the checkpoint, with what tells them apart."""
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant" and node.get_element_type().get_type_name() == "f32":
            yield node, node.data
        elif kind == "Multiply":
            scales, matrix = node.input_value(1).get_node(), _matrix_of(node)
            if matrix is not None and scales.get_type_name() == "Constant":
                yield matrix, scales.data


def _matrix_of(product: Any) -> Any:
    """The numbers that are widened, less their zero points, times their scales; None where a
    product is of something else."""
    node = product.input_value(0).get_node()
    if node.get_type_name() != "Subtract":
        return None
    widened = node.input_value(0).get_node()
    if widened.get_type_name() != "Convert":
        return None
    matrix = widened.input_value(0).get_node()
    return matrix if matrix.get_type_name() == "Constant" else None


def _key(values: npt.NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).data).hexdigest()
