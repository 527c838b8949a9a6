"""A dense model with its vision tower, without torch: the decoder's graph from openvino-genai, the
tower's from packager.shape.tower, the weights from the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from packager.checkpoint import Checkpoint
from packager.json_values import JsonObject
from packager.runtime import Report
from packager.shape import tensors
from packager.shape.axes import axes_of
from packager.shape.tensors import naming_of
from targets.openvino import decoder_graph, light, preprocessor, seeing
from targets.openvino.constants import constant
from targets.openvino.rope import refuse_positions
from targets.openvino.sizes import EMBEDDING, Compression
from targets.openvino.skeleton import GRAPH, mark_widenings, write_skeleton
from targets.openvino.tokenizer import write_tokenizer
from targets.openvino.tower_graph import TowerGraphs
from targets.openvino.tower_sizes import eight_bits
from targets.openvino.weights import put_weights


def export(
    report: Report,
    checkpoint: Path,
    compression: Compression | None,
    out: Path,
    context: int | None,
    most: int | None,
) -> JsonObject:
    """Write the artifact into the folder `out`, with what stands in between beside it, and return
    what a manifest says of the tower. It is for `context` tokens; a picture takes `most` of them at
    most.

    Raises PackError (bad input) naming what is wrong with the checkpoint.
    """
    report.note("loading the engine")
    # Late: a process that only reads what this module knows needs no engine.
    import openvino

    opened = Checkpoint.open(checkpoint)
    refuse_positions(opened, context)
    vision, text = opened.vision(), as_text(opened)
    scratch = out.with_name("graph")
    scratch.mkdir()
    out.mkdir()

    def write(model: Any, name: str, how: Compression | None) -> None:
        model = model if how is None else light.compress(model, how)
        light.name_by_place(model)
        openvino.save_model(model, out / name, compress_to_fp16=False)
        # Written here, and not by the engine's reader: nothing has said yet what is a widening.
        mark_widenings(out / name)

    report.note("building the graph of the decoder")
    decoder = _decoder(opened, text, scratch, len(vision.tower.deepstack))
    report.note("writing the decoder")
    write(decoder, seeing.LANGUAGE, compression)
    del decoder
    around = None if compression is None else eight_bits(compression)
    write(_lookup(text), seeing.EMBEDDINGS, around)
    report.note("writing the vision tower")
    graphs = TowerGraphs(vision.tower, replace(opened, tensors=vision.tensors))
    write(graphs.patches(), seeing.PATCHES, around)
    write(graphs.merger(), seeing.MERGER, around)
    if vision.tower.positions:
        # Looked up, and small: nothing is gained by fewer bits.
        write(graphs.positions(), seeing.POSITIONS, None)
    preprocessor.write(opened, vision, out, most)
    report.note("converting the tokenizer")
    write_tokenizer(opened, out)
    light.write_papers(opened, out, ends=True)
    return {
        "type": "BF16" if around is None else "INT8",
        "projector": opened.shape.model_type,
        "parameters": vision.tower.parameters(),
        "patch_size": vision.tower.patch,
        "pixels_per_token": vision.tower.pixels_per_token,
        "deepstack": list(vision.tower.deepstack),
    }


def as_text(opened: Checkpoint) -> Checkpoint:
    """The text decoder of a checkpoint with a vision tower, under the names of a text model."""
    shape = seeing.decoder_of(opened.shape)
    old, new = naming_of(opened.shape).body, naming_of(shape).body
    named = {
        (new + name.removeprefix(old) if name.startswith(old) else name): info
        for name, info in opened.tensors.items()
    }
    return replace(opened, config=shape.to_config(), shape=shape, tensors=named)


def _decoder(opened: Checkpoint, text: Checkpoint, scratch: Path, deepstack: int) -> Any:
    import openvino

    config = light.plainly_placed(text.config)
    marks = write_skeleton(scratch, config, tensors(text.shape))
    model = openvino.Core().read_model(scratch / GRAPH)
    put_weights(model, marks, text)
    decoder_graph.cut_embedding(model)
    axes = axes_of(opened.decoder_config, opened.shape, str(opened.files["config.json"]))
    decoder_graph.put_axes(model, opened.positions, np.array(axes, np.int64))
    if deepstack:
        decoder_graph.add_deepstack(model, deepstack)
    return model


def _lookup(text: Checkpoint) -> Any:
    """openvino.Model: `input` (batch, tokens) to `inputs_embeds` (batch, tokens, hidden)."""
    import openvino
    from openvino import opset13 as ops

    ids = ops.parameter([-1, -1], np.int64, name="input")
    ids.output(0).get_tensor().set_names({"input"})
    table = constant(text, EMBEDDING, text.tensors[EMBEDDING].shape)
    rows = ops.gather(ops.convert(table, "f32"), ids, ops.constant(np.array(0, np.int64)))
    rows.output(0).get_tensor().set_names({"inputs_embeds"})
    return openvino.Model([ops.result(rows, name="inputs_embeds")], [ids], "text_embeddings")
