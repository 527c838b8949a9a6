"""Jobs that the tests of the OpenVINO runtime run in child processes: many builds or questions in
one, as the engine loads slowly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from packager.runtime import Report
from targets.openvino import OpenVino, light, optimum
from targets.openvino.convert import convert
from targets.openvino.session import OpenVinoSession


def build_all(report: Report, *, checkpoint: str, recipes: list[str], out: str) -> dict[str, Any]:
    """One artifact per recipe, in folders named after them."""
    for name in recipes:
        convert(
            report,
            checkpoint=checkpoint,
            recipe=asdict(OpenVino().recipe(name)),
            workload={},
            out=str(Path(out, name)),
        )
    return {}


def in_ways(report: Report, *, wanted: list[list[str]]) -> dict[str, Any]:
    """One artifact per way, checkpoint, recipe and folder: the way is `light`, without torch, or
    `optimum`, by optimum-intel."""
    for way, checkpoint, recipe, out in wanted:
        Path(out).parent.mkdir(parents=True)
        exporter = {"light": light, "optimum": optimum}[way]
        compression = OpenVino().recipe(recipe).settings["compression"]
        exporter.export(report, Path(checkpoint), compression, Path(out))
    return {}


def in_light_way(report: Report, *, wanted: list[list[str]]) -> dict[str, Any]:
    """The same without torch, for which no process has to load it."""
    return in_ways(report, wanted=[["light", *rest] for rest in wanted])


def differences(report: Report, *, pairs: list[list[str]], tokens: int) -> dict[str, list[float]]:
    """Per pair of artifacts the largest difference of any logit over `tokens` random tokens, in
    float32."""
    largest = [
        float(np.abs(_logits(one, tokens) - _logits(other, tokens)).max()) for one, other in pairs
    ]
    return {"largest": largest}


def _logits(artifact: str, tokens: int) -> Any:
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    compiled = openvino.Core().compile_model(f"{artifact}/openvino_model.xml", "CPU", exact)
    ids = np.random.default_rng(0).integers(0, 4000, tokens)[None]
    places = np.arange(tokens)[None]
    return compiled(
        {
            "input_ids": ids,
            "attention_mask": ids * 0 + 1,
            "position_ids": places,
            "beam_idx": np.zeros(1, np.int32),
        }
    )[0]


def answer(
    report: Report, *, artifact: str, kv: str, prompts: list[list[int]], new_tokens: int, stop: bool
) -> dict[str, Any]:
    """Two answers to every prompt from one session: what was returned, and what was delivered one
    by one."""
    session = OpenVinoSession(artifact, {"context": 256, "kv": kv, "threads": 1})
    returned, delivered = [], []
    for prompt in [prompt for prompt in prompts for _ in range(2)]:
        heard: list[int] = []
        returned.append(session.generate(prompt, new_tokens, heard.append, stop=stop))
        delivered.append(heard)
    session.close()
    return {"returned": returned, "delivered": delivered}


def speak(report: Report, *, artifact: str, texts: list[str]) -> dict[str, Any]:
    """The ids of every text, and the text of those ids."""
    session = OpenVinoSession(artifact, {"context": 64, "kv": "u8", "threads": None})
    ids = [session.encode(text) for text in texts]
    return {"ids": ids, "texts": [session.decode(some) for some in ids]}


def exceed(report: Report, *, artifact: str) -> dict[str, Any]:
    """Ask for one token more than the context holds."""
    OpenVinoSession(artifact, {"context": 64, "kv": "u8", "threads": 1}).generate(
        [5] * 60, 5, lambda token: None, stop=False
    )
    return {}


def listen_badly(report: Report, *, artifact: str) -> dict[str, Any]:
    """A listener that fails at the third token; returns what came out, and an answer after it."""
    session = OpenVinoSession(artifact, {"context": 64, "kv": "u8", "threads": 1})
    heard: list[int] = []

    def fail(token: int) -> None:
        heard.append(token)
        if len(heard) == 3:
            raise ValueError("enough")

    try:
        session.generate([5, 6, 7], 20, fail, stop=False)
        error = ""
    except ValueError as raised:
        error = str(raised)
    return {
        "error": error,
        "heard": len(heard),
        "after": len(session.generate([5, 6, 7], 4, heard.append, stop=False)),
    }
