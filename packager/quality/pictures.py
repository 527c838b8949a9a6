"""What the image encoder of an artifact has lost against the unquantized vision tower: cosines of
image embeddings over drawn pictures, which no engine resizes.

Random weights say as much here as trained ones: every arithmetic step of the tower takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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

VERSION = 1
"""Raised when the same artifact would give other figures."""

SIZES = ((448, 448), (448, 672))
"""Width and height: whole tokens of 28 x 28 and nearly of 32 x 32 pixels, see `drawn`."""

_CONTEXT = 64
"""Tokens of the session's context: nothing is decoded."""


def drawn(token: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures (height, width, 3), cut to whole tokens of `token` pixels a side: slopes, waves
    and hard edges, another in each colour."""
    import numpy as np

    for number, (width, height) in enumerate(SIZES):
        width, height = width // token * token, height // token * token
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        red = 255 * x / width
        green = 127.5 + 127.5 * np.sin(y / (7 + number)) * np.cos(x / 23)
        blue = 200 * ((x // 37 + y // (29 + number)) % 2) + 55 * y / height
        yield np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8)


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


def compare(
    report: Report, session: str, artifact: str, settings: Mapping[str, Any], source: Checkpoint
) -> dict[str, Any]:
    """`pictures`, the figures of an artifact beside its checkpoint, as `judged` takes them."""
    # Late: numpy, for the child that computes.
    from packager.process import resolve
    from packager.reference.tower import VisionTower
    from packager.shape.tower import PREFIX

    vision = source.vision()
    weights = weights_of(vision.tensors, PREFIX)
    tower = VisionTower(vision.tower, weights, vision.mean, vision.deviation)
    token = vision.tower.pixels_per_token
    own = {key: value for key, value in settings.items() if not key.startswith("image_")}
    model: VisionSession = resolve(session)(artifact, {**own, "context": _CONTEXT})
    try:
        return {"pictures": lost(report, model, tower, token).to_json()}
    finally:
        model.close()


def judged(facts: Mapping[str, Any]) -> tuple[PictureQuality | None, tuple[QualityVerdict, ...]]:
    """The figures among a comparison's `facts` (`pictures`, and `tower_grade`, the class of the
    tower's weights), and their rows; none where no picture was compared."""
    from packager.quality.picture_limits import limits

    if not facts.get("pictures"):
        return None, ()
    quality = PictureQuality.from_json(facts["pictures"])
    own = limits(str(facts.get("tower_grade")))
    return quality, rows(quality, own, "image") if own else ()
