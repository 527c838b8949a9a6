"""Where the time of a decoded token goes, by what the engines themselves count: jobs of
benchmarks/decode_roof.py.

Each returns `ms`, the milliseconds of a token by kind of operation, and `count`, how many of them a
token has. Counting costs time: the sum is more than a token takes, and what counts are the parts.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from packager.measure.trials import prompt_ids
from packager.process import resolve
from packager.runtime import Report

_EMPTY = ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")
"""Operations of ggml that compute nothing: what they take is what starting one takes."""


def llama_cpp(
    report: Report, *, artifact: str, settings: dict[str, Any], prompt_tokens: int, steps: int
) -> dict[str, Any]:
    """llama.cpp's callback before and after every node of the graph; `start_us`, what a node takes
    that computes nothing, is taken off each."""
    import ctypes

    import gguf

    from targets.gguf import library
    from targets.llama_cpp.ggml_tensor import at, checked_layout
    from targets.llama_cpp.session import Session

    products = (checked_layout().product, checked_layout().chosen_product)
    describe = library.ggml_base().ggml_op_desc
    describe.argtypes, describe.restype = [ctypes.c_void_p], ctypes.c_char_p
    times: dict[str, list[float]] = defaultdict(list)
    began, counting = 0.0, False

    def kind(address: int) -> str:
        tensor = at(address)
        name = str(describe(address).decode())
        if tensor.op not in products:
            return name
        weights = gguf.GGMLQuantizationType(tensor.source(0).type).name
        part = "output matrix" if tensor.name == b"result_output" else "layers"
        return f"{name} {weights}, {part}"

    def seen(address: int, ask: bool, _user: Any) -> bool:
        nonlocal began
        if not ask and counting:
            times[kind(address)].append(time.perf_counter() - began)
        began = time.perf_counter()
        return True

    callback = library.llama().ggml_backend_sched_eval_callback(seen)

    class Watched(Session):
        """With the callback in its context."""

        def _context_params(self, kv: str) -> Any:
            params = super()._context_params(kv)
            params.cb_eval = callback
            return params

    model = Watched(artifact, settings)
    try:
        ids = prompt_ids(model, prompt_tokens + steps, 1)
        model.feed_at(ids[:prompt_tokens], 0)
        counting = True
        for place in range(prompt_tokens, prompt_tokens + steps):
            model.feed_at([ids[place]], place)
    finally:
        model.close()
    start = statistics.median(taken for name in _EMPTY for taken in times.get(name, [0.0]))
    rows = {name: taken for name, taken in times.items() if name not in _EMPTY}
    return {
        "ms": {
            name: 1000 * max(0.0, sum(taken) - start * len(taken)) / steps
            for name, taken in rows.items()
        },
        "count": {name: len(taken) / steps for name, taken in rows.items()},
        "start_us": 1e6 * start,
    }


def openvino(
    report: Report, *, artifact: str, settings: dict[str, Any], prompt_tokens: int, steps: int
) -> dict[str, Any]:
    """The plug-in's own counters, as the mean over a prompt whose tokens go in one at a time."""
    import numpy as np
    from openvino import Core

    given = {"KV_CACHE_PRECISION": settings["kv"], "PERF_COUNT": True}
    compiled = Core().compile_model(f"{artifact}/openvino_model.xml", "CPU", given)
    request = compiled.create_infer_request()
    names = {name for port in compiled.inputs for name in port.get_names()}
    ids = np.random.default_rng(1).integers(5, 1000, prompt_tokens + steps, np.int64)
    for place, token in enumerate(ids):
        inputs = {
            "input_ids": np.array([[token]], np.int64),
            "attention_mask": np.ones((1, place + 1), np.int64),
            "position_ids": np.array([[place]], np.int64),
            "beam_idx": np.zeros(1, np.int32),
        }
        request.infer({name: value for name, value in inputs.items() if name in names})
    ms: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for row in request.get_profiling_info():
        taken = row.real_time.total_seconds() * 1000
        if taken:
            part = ", output matrix" if "lm_head" in row.node_name else ""
            name = f"{row.node_type}{part} ({row.exec_type})"
            ms[name] += taken
            count[name] += 1
    return {"ms": dict(ms), "count": dict(count)}


def onnxruntime(
    report: Report, *, artifact: str, settings: dict[str, Any], prompt_tokens: int, steps: int
) -> dict[str, Any]:
    """ONNX Runtime's own profile of the last `steps` tokens behind a prompt."""
    import tempfile

    import onnxruntime_genai as og

    with tempfile.TemporaryDirectory() as folder:
        config = og.Config(artifact)
        wanted = {"enable_profiling": f"{folder}/profile"}
        if settings.get("threads"):
            wanted["intra_op_num_threads"] = settings["threads"]
        config.overlay(json.dumps({"model": {"decoder": {"session_options": wanted}}}))
        model = og.Model(config)
        session = resolve("targets.onnxruntime.session:OnnxRuntimeSession")(artifact, settings)
        ids = prompt_ids(session, prompt_tokens, 1)
        session.close()
        params = og.GeneratorParams(model)
        most = prompt_tokens + steps + 1
        params.set_search_options(max_length=most, min_length=most, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        for _ in range(steps + 1):
            generator.generate_next_token()
        # The file is written when the last of them lets go of the session.
        del generator, params, model
        (file,) = Path(folder).glob("profile*.json")
        events = json.loads(file.read_text())
    runs = [event for event in events if event.get("name") == "model_run"][-steps:]
    ms: dict[str, float] = defaultdict(float)
    count: dict[str, float] = defaultdict(float)
    for event in events:
        inside = event["ts"] >= runs[0]["ts"] and event.get("cat") == "Node"
        if inside and event["name"].endswith("_kernel_time"):
            part = ", output matrix" if "lm_head" in event["name"] else ""
            name = f"{event['args']['op_name']}{part}"
            ms[name] += event["dur"] / 1000 / len(runs)
            count[name] += 1 / len(runs)
    whole = statistics.median(run["dur"] for run in runs) / 1000
    return {"ms": dict(ms), "count": dict(count), "run_ms": whole}
