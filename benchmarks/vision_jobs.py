"""The jobs of the benchmark of pictures, for child processes."""

from __future__ import annotations

import time
from pathlib import Path

from packager.json_values import JsonObject
from packager.process import resolve
from packager.runtime import Report


def look(
    report: Report,
    *,
    session_class: str,
    artifact: str,
    settings: JsonObject,
    picture: JsonObject,
    texts: list[str],
    new_tokens: int,
    encoder: bool,
) -> JsonObject:
    """One answer about a picture (packager.pictures.Pixels) by a `module:class` of
    packager.session.VisionSession: milliseconds of the image encoder and from the pixels to the
    first token, tokens of the prompt and of the picture. `encoder`: whether the session has an
    image encoder of its own, to be opened before anything is timed."""
    session = resolve(session_class)(artifact, settings)
    if encoder:
        session.open_encoder()
    stamps: list[float] = []
    started = time.perf_counter()
    seen = session.look(
        texts, [picture], new_tokens, lambda _: stamps.append(time.perf_counter()), stop=False
    )
    session.close()
    return {
        "encode_ms": 1000 * seen.encode_s,
        "first_token_ms": 1000 * (stamps[0] - started),
        "prompt_tokens": seen.prompt_tokens,
        "image_tokens": seen.image_tokens,
    }


def ask_pipeline(
    report: Report,
    *,
    artifact: str,
    settings: JsonObject,
    picture: str,
    question: str,
    new_tokens: int,
) -> JsonObject:
    """One answer of openvino_genai.VLMPipeline as the package's README opens it, by its own
    metrics: milliseconds of preparing the embeddings and to the first token, tokens of the
    prompt."""
    # Late: they come with the engine.
    import numpy
    import openvino
    import openvino_genai
    from PIL import Image

    from targets.openvino.sizes import cache_blocks

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.num_kv_blocks = cache_blocks(int(settings["context"]))
    properties = {
        "KV_CACHE_PRECISION": settings["kv"],
        "INFERENCE_NUM_THREADS": settings["threads"],
    }
    pipeline = openvino_genai.VLMPipeline(
        Path(artifact), "CPU", scheduler_config=scheduler, **properties
    )
    pixels = numpy.array(Image.open(picture).convert("RGB"))
    answer = pipeline.generate(
        question,
        images=[openvino.Tensor(pixels[None])],
        max_new_tokens=new_tokens,
        ignore_eos=True,
    )
    metrics = answer.perf_metrics
    return {
        "encode_ms": metrics.get_prepare_embeddings_duration().mean,
        "first_token_ms": metrics.get_ttft().mean,
        "prompt_tokens": metrics.get_num_input_tokens(),
    }
