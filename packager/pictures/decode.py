"""Pixels of a picture by Pillow, in a process that does nothing else.

What becomes of a picture: turned as its EXIF orientation says; laid on white where it is
transparent, as the published processor does (qwen-vl-utils, to_rgb); 16 bits a channel cut to the
upper 8; CMYK converted by Pillow's rule, colour profiles left alone, as the published processors
do; of one that moves the first frame. Nothing is resized: the engine does that by its own rule.
"""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from packager import limits
from packager.errors import PackError, bad_input
from packager.escapes import words_of
from packager.foreign import bounded_bytes
from packager.json_values import JsonObject
from packager.pictures.container import CONVERT, Container, read
from packager.process import limit_memory

if TYPE_CHECKING:
    from PIL import Image

    from packager.runtime import Report

_MEMORY_BYTES = 2 << 30
"""Address space of the process: eight copies of the largest picture, and Python."""

_ORIENTATION = 0x0112
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def decode_job(report: Report, *, path: str, name: str, out: str) -> JsonObject:
    """The job of packager.pictures.taken: the RGB bytes of a picture, row by row, in the file
    `out`; returns its width and height and what was made of it. `name` is what sentences call it.

    The memory of this process is bounded from now on.
    """
    limit_memory(_MEMORY_BYTES)
    image, notes = rgb(bounded_bytes(Path(path), limits.PICTURE_BYTES), name)
    Path(out).write_bytes(image.tobytes())
    return {"width": image.width, "height": image.height, "notes": notes}


def rgb(data: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """A picture in 8 bits of red, green and blue, upright; and sentences on what was left out.

    Raises PackError (exit code 6) for what is none, is damaged or too large.
    """
    container = read(data, name)
    # Late: it comes with the extra for pictures.
    from PIL import Image

    # Its own guard against bombs stays behind ours.
    Image.MAX_IMAGE_PIXELS = limits.PICTURE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            kinds = [container.kind.upper()]
            with Image.open(io.BytesIO(data), formats=kinds) as opened:
                image = _upright(_opaque(_first(opened, container)), opened)
    except PackError:
        raise
    except MemoryError:
        raise bad_input(f"{name} takes more memory than any picture.", CONVERT) from None
    except Exception as error:  # a decoder raises whatever its author thought of
        raise bad_input(f"{name} cannot be decoded: {words_of(error)}.", CONVERT) from error
    notes = []
    if container.frames > 1:
        notes.append(f"{name} is animated: the first of its {container.frames} frames is taken.")
    return image, notes


def _first(opened: Image.Image, container: Container) -> Image.Image:
    """The first frame, decoded, of the size that the header promised."""
    if opened.size != (container.width, container.height):
        raise ValueError("its parts disagree on its size")
    opened.seek(0)
    opened.load()
    return opened


def _opaque(image: Image.Image) -> Image.Image:
    """In RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode in _DEEP:
        high = 0 if image.mode == "I;16B" else 1
        image = Image.frombytes("L", image.size, image.tobytes()[high::2])
    elif image.mode in ("I", "F"):
        # No PNG is opened so; a scale for such numbers would be made up.
        raise ValueError(f"its pixels are of an unsupported kind ({image.mode})")
    # What Image.has_transparency_data says, which Pillow before 10.1 has not: images with a server
    # in them have a Pillow of their own.
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground
    return image.convert("RGB")


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Turned as the EXIF of the file says; as it is where that is damaged."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = None
    with suppress(Exception):  # readers of EXIF fail in every way on what cameras write
        turn = turns.get(opened.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)
