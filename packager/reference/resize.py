"""Bicubic resizing as the published image processors have it: a kernel with the factor -0.5 that
widens where a picture becomes smaller.

Source: Pillow 13, src/libImaging/Resample.c; torchvision's antialiased one is the same but for how
it rounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from packager.reference.arithmetic import Floats

_FACTOR, _REACH = -0.5, 2.0


def bicubic(pixels: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture (height, width, 3) in another size. Each axis by itself, rounded to 8 bits in
    between."""
    across = _rounded(np.einsum("oi,hic->hoc", _shares(pixels.shape[1], width), pixels))
    return _rounded(np.einsum("oi,iwc->owc", _shares(pixels.shape[0], height), across))


def _rounded(values: Floats) -> npt.NDArray[np.uint8]:
    return np.asarray(np.floor(values + np.float32(0.5)).clip(0, 255), np.uint8)


def _shares(before: int, after: int) -> Floats:
    """(after, before): what each pixel of an axis takes from the old ones."""
    scale = before / after
    wide = max(scale, 1.0)
    centre = (np.arange(after)[:, None] + 0.5) * scale
    away = np.abs((np.arange(before)[None] + 0.5 - centre) / wide)
    near = ((_FACTOR + 2) * away - (_FACTOR + 3)) * away**2 + 1
    far = _FACTOR * (((away - 5) * away + 8) * away - 4)
    share = np.where(away < 1, near, np.where(away < _REACH, far, 0))
    return np.asarray(share / share.sum(1, keepdims=True), np.float32)
