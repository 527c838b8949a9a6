"""Draw the pictures of the tasks that `behave` asks of packages that see.

    python -m benchmarks.behaviour_pictures

Needs Pillow with FreeType. The files are in packager/behaviour/pictures; what is right about them
stands in packager/behaviour/picture_tasks.jsonl.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parent.parent / "packager" / "behaviour" / "pictures"
SIZE = (448, 448)
"""Whole image tokens of 28 and of 32 pixels: no engine resizes it."""
_RED, _BLUE, _GREEN, _INK = (215, 30, 30), (30, 60, 210), (20, 150, 60), (20, 20, 20)


def main() -> None:
    """Draw all."""
    FOLDER.mkdir(exist_ok=True)
    for name, colour in (("dot-red", _RED), ("dot-blue", _BLUE)):
        drawing = _new()
        drawing.ellipse((124, 124, 324, 324), fill=colour)
        _save(drawing, name)
    drawing = _new()
    drawing.rectangle((40, 150, 190, 300), fill=_GREEN)
    drawing.polygon([(330, 150), (250, 300), (410, 300)], fill=_BLUE)
    _save(drawing, "two-forms")
    drawing = _new()
    for x, y in ((90, 100), (320, 80), (150, 310), (350, 330)):
        drawing.ellipse((x - 45, y - 45, x + 45, y + 45), fill=_INK)
    _save(drawing, "four-dots")
    drawing = _new()
    _write(drawing, (224, 224), "4071", 150)
    _save(drawing, "number")
    drawing = _new()
    drawing.rectangle((104, 164, 344, 284), fill=_GREEN)
    _write(drawing, (224, 224), "EXIT ONLY", 36, (255, 255, 255))
    _save(drawing, "sign")
    drawing = _new()
    for place, (letter, height) in enumerate((("A", 120), ("B", 200), ("C", 310), ("D", 160))):
        left = 50 + 95 * place
        drawing.rectangle((left, 380 - height, left + 65, 380), fill=_BLUE)
        _write(drawing, (left + 32, 410), letter, 40)
    drawing.line((30, 380, 420, 380), fill=_INK, width=4)
    _save(drawing, "bars")
    drawing = _new()
    rows = (("Bread", "3.20"), ("Cheese", "7.80"), ("Apples", "4.50"), ("Milk", "3.00"))
    for place, (name, price) in enumerate((*rows, ("TOTAL", "18.50"))):
        _write(drawing, (130, 80 + 70 * place), name, 40)
        _write(drawing, (340, 80 + 70 * place), price, 40)
    drawing.line((40, 325, 408, 325), fill=_INK, width=3)
    _save(drawing, "receipt")


def _new() -> ImageDraw.ImageDraw:
    return ImageDraw.Draw(Image.new("RGB", SIZE, (245, 245, 245)))


def _write(
    drawing: ImageDraw.ImageDraw,
    middle: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int] = _INK,
) -> None:
    drawing.text(middle, text, fill=colour, font=ImageFont.load_default(size), anchor="mm")


def _save(drawing: ImageDraw.ImageDraw, name: str) -> None:
    image: Image.Image = drawing._image
    # 64 colours are enough for edges: the files stay small.
    image.quantize(64).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
