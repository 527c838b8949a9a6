"""A question with pictures as the chat template of a checkpoint writes it, and the texts around the
pictures, as sessions take them."""

from __future__ import annotations

import re

from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject

PLACES = (
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|vision_bos|><|IMAGE|><|vision_eos|>",
)
"""What the templates of Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5, and that of Qwen2.5-Omni, write
for a picture (their chat_template.jinja). Engines set the tokens around a picture themselves, and
as many in place of the middle one as the picture takes."""

CONTROL = (
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"),
)
"""Tokens of which those are made, and those of videos."""

_PLACE = re.compile("|".join(map(re.escape, PLACES)))


def messages(question: str, pictures: int) -> list[JsonObject]:
    """One turn of the user: the pictures, then the question, as the published examples have them.

    Raises PackError (usage) for a question that writes control tokens of pictures itself.
    """
    written = next((token for token in CONTROL if token in question), None)
    if written is not None and pictures:
        raise usage(
            f"The prompt writes {written} itself.",
            "Leave it out: the chat template writes it where a picture goes.",
        )
    parts: list[JsonObject] = [{"type": "image"} for _ in range(pictures)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def around(prompt: str, pictures: int) -> list[str]:
    """The texts around the pictures of a rendered prompt: one more than there are pictures.

    Raises PackError (exit code 6) for a template that writes another number of places.
    """
    texts = _PLACE.split(prompt)
    if len(texts) != pictures + 1 or any(token in text for token in CONTROL for text in texts):
        raise no_places(f"it writes {len(texts) - 1} places for {pictures} pictures")
    return texts


def no_places(why: str) -> PackError:
    """The sentence for a package whose template does not take pictures."""
    return bad_input(
        f"The chat template of the package does not take the pictures: {why}.",
        "Build it again with the template of the model's own repository.",
    )
