"""The job of the benchmark of pictures, for a child process."""

from __future__ import annotations

import time

from packager.json_values import JsonObject
from packager.runtime import Report


def look(
    report: Report,
    *,
    artifact: str,
    settings: JsonObject,
    picture: JsonObject,
    texts: list[str],
    new_tokens: int,
) -> JsonObject:
    """One answer about a picture (packager.pictures.Pixels): milliseconds of the image encoder and
    from the pixels to the first token, tokens of the prompt and of the picture."""
    # Late: it comes with the engine.
    from targets.llama_cpp.vision import VisionSession

    session = VisionSession(artifact, settings)
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
