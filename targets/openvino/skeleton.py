"""The graph of a dense Qwen without its weights, made by openvino-genai from a GGUF of a few
kilobytes.

Its reader fixes heads, layers, norms and positions in the graph and takes every other width from
the tensors. So the GGUF names the true heads and layers, and its matrices are two wide where the
true ones are thousands; the true weights are put in afterwards. What is read, copied and compiled
here is next to nothing, whatever the model.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from packager.errors import bad_input
from packager.json_values import JsonObject
from packager.shape import TensorSpec
from targets.gguf.arch import architecture

GRAPH = "openvino_model.xml"
"""The name openvino-genai gives the graph it writes."""

NARROW = 2
"""Stands for the widths that the reader takes from the tensors: hidden, feed-forward,
vocabulary."""

FIRST_MARK, LAST_MARK = 512, 2047
"""Every tensor is filled with a whole number of its own, by which its constant is found again.
Float16 has all of these."""

_BY_HEADS = ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm")


def write_skeleton(
    folder: Path, config: JsonObject, specs: Iterable[TensorSpec]
) -> dict[int, TensorSpec]:
    """Write the graph that config.json describes into `folder`, with marks for weights; returns
    whose mark each is.

    Raises PackError (bad input) for a configuration with more tensors than there are marks.
    """
    # Late: it loads the engine.
    import openvino_genai

    marks = dict(enumerate(specs, FIRST_MARK))
    if max(marks) > LAST_MARK:
        raise bad_input(
            f"config.json describes {len(marks)} tensors, more than a dense Qwen has.",
            "Check num_hidden_layers.",
        )
    converter = architecture(config)
    path = folder / "skeleton.gguf"
    writer = gguf.GGUFWriter(path, converter.gguf_name)
    converter.describe(writer)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_types([gguf.TokenType.NORMAL, gguf.TokenType.NORMAL, gguf.TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    for mark, spec in marks.items():
        writer.add_tensor(converter.new_name(spec.name), marked(mark, narrow(spec)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # The graph is on the disk before the plug-in compiles it, which is not wanted here and which
    # marks may not survive.
    with contextlib.suppress(RuntimeError):
        openvino_genai.LLMPipeline(path, "CPU", enable_save_ov_model=True)
    if not (folder / GRAPH).is_file():
        raise bad_input(
            "openvino-genai wrote no graph for what config.json describes.",
            "Install the tested versions: constraints.txt.",
        )
    path.unlink()
    mark_widenings(folder / GRAPH)
    return marks


def narrow(spec: TensorSpec) -> tuple[int, ...]:
    """The tensor's shape with true heads and nothing else true."""
    part = spec.name.split(".")[-2]
    if part in _BY_HEADS:
        return (spec.shape[0], *(NARROW for _ in spec.shape[1:]))
    if part == "o_proj":
        return (NARROW, spec.shape[1])
    return (NARROW,) * len(spec.shape)


def mark_widenings(graph: Path) -> None:
    """Say of every widening of a 16-bit constant in a graph's file that it is one: without it the
    plug-in keeps the weights as float32, too.

    The reader leaves it unsaid, and openvino's Python cannot say it of a node; its file format can.
    """
    tree = ElementTree.parse(graph)
    layers = {layer.get("id"): layer for layer in tree.iter("layer")}
    for edge in tree.iter("edge"):
        source, layer = layers[edge.get("from-layer")], layers[edge.get("to-layer")]
        if (
            source.get("type") == "Const"
            and layer.get("type") == "Convert"
            and layer.find("rt_info") is None
        ):
            data = source.find("data")
            if data is not None and data.get("element_type") in ("f16", "bf16"):
                info = ElementTree.Element("rt_info")
                ElementTree.SubElement(info, "attribute", name="decompression", version="0")
                layer.insert(1, info)
    tree.write(graph)


def marked(mark: int, size: tuple[int, ...]) -> npt.NDArray[Any]:
    """The mark, then numbers that differ: a matrix of equal ones is folded away when the plug-in
    compiles the graph."""
    values = np.arange(np.prod(size)) % 7
    values[0] = mark
    # The reader takes vectors in float32 alone.
    return values.reshape(size).astype(np.float32 if len(size) == 1 else np.float16)
