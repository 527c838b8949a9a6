"""The features that ASRPipeline of openvino-genai computes, which it hands out to nobody: read
through two graphs that are put in the place of the model's.

The first gives the features back as if they were vectors of a sound. The second spells them out: at
each step it says the next digit of the next number, as a token.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray
from openvino import opset13 as ops

from packager.shape.audio import CHUNK_FRAMES, MELS
from targets.openvino.audio_graph import INPUT, OUTPUT
from targets.openvino.decoder_graph import named
from targets.openvino.hearing import DECODER, ENCODER
from targets.openvino.sound_decoder import VECTORS

_DIGITS = 256
_LOWEST, _SPAN = -4.0, 8.0
"""Of log-mel features, which are scaled to about -1 to 2."""
RESOLUTION = _SPAN / _DIGITS**2


def engine_features(artifact: Path, samples: NDArray[np.float32], work: Path) -> NDArray[Any]:
    """(128, frames) of a sound of whole seconds, as the engine computes them with the settings of
    an artifact."""
    shutil.copytree(artifact, work)
    for name, model in ((ENCODER, _giving_back()), (DECODER, _spelling())):
        openvino.save_model(model, work / name, compress_to_fp16=False)
    seconds = len(samples) // 16_000
    count = 2 * seconds * MELS * CHUNK_FRAMES
    said: list[int] = []

    class Listener(openvino_genai.StreamerBase):  # type: ignore[misc]
        def write(self, token: Any) -> Any:
            said.extend([token] if isinstance(token, int) else token)
            return openvino_genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    # Steps are counted in single precision.
    pipeline = openvino_genai.ASRPipeline(work, "CPU", INFERENCE_PRECISION_HINT="f32")
    # With a language the engine hands on every token.
    more: dict[str, Any] = {"language": "English", "max_new_tokens": count, "ignore_eos": True}
    pipeline.generate(samples.tolist(), streamer=Listener(), **more)
    digits = np.array(said[:count], np.float64).reshape(-1, 2)
    numbers = _LOWEST + (digits @ [_DIGITS, 1.0]) * RESOLUTION
    chunks = numbers.reshape(seconds, MELS, CHUNK_FRAMES)
    return np.asarray(chunks.transpose(1, 0, 2).reshape(MELS, -1))


def _giving_back() -> Any:
    """A row of a band's frames as the vector of a token."""
    given = named(ops.parameter([-1, -1, -1], np.float32, name=INPUT))
    out = ops.add(given, ops.constant(np.array(0, np.float32)))
    out.output(0).get_tensor().set_names({OUTPUT})
    return openvino.Model([ops.result(out, name=OUTPUT)], [given], "features")


def _spelling() -> Any:
    """The digits of number after number, the larger one first."""
    ids = named(ops.parameter([-1, -1], np.int64, name="input_ids"))
    vectors = named(ops.parameter([-1, -1, -1], np.float32, name=VECTORS))
    beams = named(ops.parameter([-1], np.int32, name="beam_idx"))
    # A state of whole numbers is not kept.
    start = _number([0.0])
    told = openvino.op.util.VariableInfo()
    told.data_shape, told.data_type = openvino.PartialShape([1]), openvino.Type.f32
    told.variable_id = "count"
    variable = openvino.op.util.Variable(told)
    count = ops.read_value(start, variable)
    more = ops.assign(ops.add(count, _number([1.0])), variable)
    flat = ops.reshape(vectors, _axes(-1), False)
    pair = ops.floor(ops.divide(count, _number(2.0)))
    second = ops.subtract(count, ops.multiply(pair, _number(2.0)))
    number = ops.gather(flat, ops.convert(pair, "i32"), ops.constant(np.array(0, np.int64)))
    scaled = ops.divide(ops.subtract(number, _number(_LOWEST)), _number(RESOLUTION))
    whole = ops.round(scaled, "half_to_even")
    large = ops.floor(ops.divide(whole, _number(_DIGITS)))
    small = ops.subtract(whole, ops.multiply(large, _number(_DIGITS)))
    digit = ops.convert(ops.select(ops.greater(second, _number(0.5)), small, large), "i32")
    digits = ops.constant(np.array(_DIGITS, np.int64))
    on, off = (ops.constant(np.array(value, np.float32)) for value in (1, 0))
    rows = ops.one_hot(digit, digits, on, off, -1)
    # Every input is read by somebody.
    read = ops.multiply(
        ops.add(
            ops.convert(ops.reduce_max(ids, _axes(0, 1), False), "f32"),
            ops.convert(ops.reduce_max(beams, _axes(0), False), "f32"),
        ),
        off,
    )
    logits = ops.unsqueeze(ops.add(rows, read), ops.constant(np.array(0, np.int64)))
    logits.output(0).get_tensor().set_names({"logits"})
    return openvino.Model(
        [ops.result(logits, name="logits")], [more], [ids, vectors, beams], "spelled"
    )


def _number(value: Any) -> Any:
    return ops.constant(np.array(value, np.float32))


def _axes(*numbers: int) -> Any:
    return ops.constant(np.array(numbers, np.int64))
