"""What an artifact that takes pictures has lost against the unquantized model: cosines of image
embeddings over drawn pictures, which no engine resizes; whether pictures get the published number
of tokens and the published positions; and how far a text after a picture is expected otherwise.

Random weights say as much here as trained ones, but for that text: every arithmetic step of the
tower takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from packager.json_values import JsonObject, at
from packager.quality import picture_answer, picture_processor
from packager.quality.embeddings import Cosines, rows, weights_of
from packager.records import QualityVerdict
from packager.records.quality import PictureQuality
from packager.runtime import Report
from packager.session import VisionSession

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.checkpoint import Checkpoint
    from packager.reference.tower import VisionTower

VERSION = 2
"""Raised when the same artifact would give other figures."""

SIZES = ((448, 448), (448, 672))
"""Width and height: whole tokens of 28 x 28 and nearly of 32 x 32 pixels, see `drawn`."""

_CONTEXT = 256
"""Tokens of the session's context: more than the picture and the text of an answer take."""


def drawn(token: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures (height, width, 3), cut to whole tokens of `token` pixels a side: slopes, waves
    and hard edges, another in each colour."""
    for number, (width, height) in enumerate(SIZES):
        yield picture(width // token * token, height // token * token, number)


def picture(width: int, height: int, number: int) -> NDArray[np.uint8]:
    """The drawn picture (height, width, 3) of a number."""
    import numpy as np

    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 255 * x / width
    green = 127.5 + 127.5 * np.sin(y / (7 + number)) * np.cos(x / 23)
    blue = 200 * ((x // 37 + y // (29 + number)) % 2) + 55 * y / height
    return np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8)


def lost(report: Report, model: VisionSession, tower: VisionTower, token: int) -> PictureQuality:
    """The figures of a loaded artifact. `token` is the side of an image token in pixels."""
    cosines = Cosines()
    for number, pixels in enumerate(drawn(token), 1):
        height, width, _ = pixels.shape
        report.note(f"a picture of {width} x {height} pixels against the unquantized tower")
        ours = model.embed_image({"data": pixels.tobytes(), "width": width, "height": height})
        cosines.add(ours, tower.embed(pixels))
        report.progress(number, len(SIZES), "pictures")
    tokens, broken, mean, least = cosines.figures()
    return PictureQuality(
        pictures=len(SIZES), tokens=tokens, broken=broken, cosine_mean=mean, cosine_min=least
    )


# Any: figures that go to the manifest, whose type checks them.
def compare(
    report: Report,
    asked: JsonObject,
    artifact: str,
    settings: Mapping[str, Any],
    source: Checkpoint,
) -> dict[str, Any]:
    """`pictures`, the figures of an artifact beside its checkpoint, as `judged` takes them.

    `asked`: `session` of the runtime, `answers`, whether the weights are real, so that a text
    behind a picture is compared too.
    """
    # Late: numpy, for the child that computes.
    from packager.process import resolve
    from packager.reference.resize import bicubic
    from packager.reference.tower import VisionTower
    from packager.shape.tower import PREFIX

    vision = source.vision()
    weights = weights_of(vision.tensors, PREFIX)
    tower = VisionTower(vision.tower, weights, vision.mean, vision.deviation)
    token = vision.tower.pixels_per_token
    columns, rows_down = picture_answer.GRID
    seen = picture(columns * token, rows_down * token, len(SIZES))
    width, height = (round(count * token) for count in picture_answer.UNEVEN)
    uneven = picture(width, height, len(SIZES))
    resized = bicubic(uneven, seen.shape[1], seen.shape[0])
    wanted = picture_answer.expected(report, source, tower, seen, at(asked, "answers", bool))
    own = {key: value for key, value in settings.items() if not key.startswith("image_")}
    opened = {**own, **picture_processor.SETTINGS, "context": min(_CONTEXT, source.shape.context)}
    model: VisionSession = resolve(at(asked, "session", str))(artifact, opened)
    try:
        # First: an engine that hands out no vectors is closed for those.
        said = picture_answer.own_answer(model, wanted, uneven)
        quality = lost(report, model, tower, token).but(**picture_processor.same(model, token))
        quality = quality.but(**picture_answer.compared(report, model, wanted, seen, said, resized))
        return {"pictures": quality.to_json()}
    finally:
        model.close()


def judged(facts: Mapping[str, Any]) -> tuple[PictureQuality | None, tuple[QualityVerdict, ...]]:
    """The figures among a comparison's `facts` (`pictures`, `tower_grade`, the class of the tower's
    weights, and `answer_grade`, that of the recipe), and their rows; none where no picture was
    compared."""
    from packager.quality.picture_limits import limits

    if not facts.get("pictures"):
        return None, ()
    quality = PictureQuality.from_json(facts["pictures"])
    own = limits(str(facts.get("tower_grade")))
    answers = picture_answer.rows(quality, facts.get("answer_grade"))
    return quality, (
        *(rows(quality, own, "image") if own else ()),
        *picture_processor.rows(quality),
        *answers,
    )
