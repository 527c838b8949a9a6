"""A dense model with its audio encoder, without torch: the decoder's graph from openvino-genai, the
encoder's from packager.shape.audio, the weights from the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint
from packager.errors import bad_input
from packager.json_values import JsonObject, at
from packager.runtime import Report
from packager.shape import tensors
from packager.shape.tensors import naming_of
from targets.openvino import hearing, light, sound_decoder, sound_files
from targets.openvino.audio_graph import EncoderGraph
from targets.openvino.rope import put_positions, refuse_positions
from targets.openvino.sizes import OUTPUT, Compression
from targets.openvino.skeleton import GRAPH, mark_widenings, write_skeleton
from targets.openvino.tokenizer import added_tokens, definition_of, write_tokenizer
from targets.openvino.tower_sizes import eight_bits
from targets.openvino.weights import put_weights

_WHOLE = ("Convolution",)
"""What keeps 16 bits in the encoder, a fiftieth of it: as in llama.cpp's files."""


def export(
    report: Report,
    checkpoint: Path,
    compression: Compression | None,
    out: Path,
    context: int | None,
) -> JsonObject:
    """Write the artifact into the folder `out`, with what stands in between beside it, and return
    what a manifest says of the encoder. It is for `context` tokens.

    Raises PackError (bad input) naming what is wrong with the checkpoint.
    """
    report.note("loading the engine")
    # Late: a process that only reads what this module knows needs no engine.
    import openvino

    opened = Checkpoint.open(checkpoint)
    refuse_positions(opened, context)
    audio, text, pad = opened.audio(), as_text(opened), pad_of(opened)
    scratch = out.with_name("graph")
    scratch.mkdir()
    out.mkdir()

    def write(model: Any, name: str, how: Compression | None, besides: Sequence[str] = ()) -> None:
        model = model if how is None else light.compress(model, how, besides)
        light.name_by_place(model)
        openvino.save_model(model, out / name, compress_to_fp16=False)
        # Written here, and not by the engine's reader: nothing has said yet what is a widening.
        mark_widenings(out / name)

    report.note("building the graph of the decoder")
    decoder = _decoder(text, scratch, pad)
    report.note("writing the decoder")
    write(decoder, hearing.DECODER, compression)
    del decoder
    around = None if compression is None else eight_bits(compression)
    report.note("writing the audio encoder")
    graph = EncoderGraph(audio.tower, replace(opened, tensors=audio.tensors))
    write(graph.encoder(), hearing.ENCODER, around, _WHOLE)
    sound_files.write(out)
    report.note("converting the tokenizer")
    write_tokenizer(opened, out)
    light.write_papers(opened, out, ends=True)
    return {
        "type": "BF16" if around is None else "INT8",
        "projector": opened.shape.model_type,
        "parameters": audio.tower.parameters(),
    }


def as_text(opened: Checkpoint) -> Checkpoint:
    """The text decoder of a checkpoint with an audio encoder, under the names of a text model."""
    shape = hearing.decoder_of(opened.shape)
    old, new = naming_of(opened.shape), naming_of(shape)

    def renamed(name: str) -> str:
        if name == old.head + OUTPUT:
            return new.head + OUTPUT
        return new.body + name.removeprefix(old.body) if name.startswith(old.body) else name

    named = {renamed(name): info for name, info in opened.tensors.items()}
    return replace(opened, config=shape.to_config(), shape=shape, tensors=named)


def pad_of(opened: Checkpoint) -> int:
    """The id that stands for a token of a sound. Raises PackError (bad input) where the tokenizer
    has not all that stand around a sound, or config.json names another one."""
    rows = added_tokens(definition_of(opened)[0], opened.tokenizer_config)
    ids = {at(row, "content", str): at(row, "id", int) for row in rows}
    for token in (hearing.BEGIN, hearing.PAD, hearing.END):
        # What a tokenizer does not know it takes for plain text, and says nothing.
        if token not in ids:
            raise bad_input(
                f"The vocabulary of the model has no {token}, which sound needs.",
                "Build it from the checkpoint as it was published.",
            )
    pad = ids[hearing.PAD]
    thinker = opened.config.get("thinker_config")
    stated = thinker.get("audio_token_id") if isinstance(thinker, dict) else None
    if stated not in (None, pad):
        raise bad_input(
            f"config.json gives sound the id {stated}, and the tokenizer the id {pad}.",
            "Fetch both files again from the model's repository.",
        )
    return pad


def _decoder(text: Checkpoint, scratch: Path, pad: int) -> Any:
    import openvino

    marks = write_skeleton(scratch, light.plainly_placed(text.config), tensors(text.shape))
    model = openvino.Core().read_model(scratch / GRAPH)
    put_weights(model, marks, text)
    put_positions(model, text.positions)
    sound_decoder.take_sound(model, pad, text.shape.hidden)
    sound_decoder.count_positions(model)
    sound_decoder.answer_last(model)
    return model
