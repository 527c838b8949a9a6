"""Colours of a theme that can be read: where text is too close to what lies below it, it moves
towards black or white.

The bar is that of WCAG 2.2, level AA, for text of normal size: a contrast of 4.5 to 1 (success
criterion 1.4.3).
"""

from __future__ import annotations

from collections.abc import Mapping

from textual.color import BLACK, WHITE, Color, ColorParseError

LEAST = 4.5
_CURSOR = ("block-cursor-foreground", "block-cursor-background")
PAIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("foreground-muted", ("background", "panel", "surface")),
    *(
        (f"text-{name}", ("background", "panel"))
        for name in ("primary", "accent", "success", "warning", "error")
    ),
    (_CURSOR[0], (_CURSOR[1],)),
    ("block-cursor-blurred-foreground", ("block-cursor-blurred-background",)),
    ("footer-key-foreground", ("footer-background",)),
    ("footer-description-foreground", ("footer-background",)),
)
"""Colours of text, and those they lie on, by the names of theme variables."""
_STEPS = 20


def ratio(text: Color, below: Color) -> float:
    """The contrast of a text with what lies below it, 1 to 21; a text that lets through is laid
    over it first."""
    above = below + text if text.a < 1 else text
    light, dark = sorted((_luminance(above), _luminance(below)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def readable(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a theme with every text of `PAIRS` in a contrast of at least `LEAST`, as far
    as there is one."""
    changed = dict(variables)
    cursor = _parsed(changed.get(_CURSOR[1]))
    if cursor is not None and changed.get(_CURSOR[0], "").startswith("auto"):
        # Textual takes black or white and lets some of the ground through, which can be too much.
        on_it = cursor.get_contrast_text(1.0)
        changed |= {_CURSOR[0]: on_it.hex, _CURSOR[1]: _away(cursor, on_it).hex}
    for name, grounds in PAIRS:
        text, below = (
            _parsed(changed.get(name)),
            [_parsed(changed.get(ground)) for ground in grounds],
        )
        known = [
            colour for ground in below if ground is not None for colour in as_seen(ground, changed)
        ]
        if text is not None and known:
            changed[name] = _moved(text, known).hex
    return changed


def as_seen(ground: Color, variables: Mapping[str, str]) -> list[Color]:
    """A ground as it is seen: one that lets through lies on the background or on a surface."""
    below = [_parsed(variables.get(name)) for name in ("background", "surface")]
    return [colour + ground for colour in below if colour is not None] if ground.a < 1 else [ground]


def _away(ground: Color, text: Color) -> Color:
    """The ground, moved away from a text that is black or white until it can be read."""
    end = BLACK if text.brightness > 0.5 else WHITE
    steps = (ground.blend(end, step / _STEPS) for step in range(_STEPS + 1))
    return next((colour for colour in steps if ratio(text, colour) >= LEAST), end)


def _moved(text: Color, grounds: list[Color]) -> Color:
    """The nearest colour on the way to black or white that can be read on all grounds; the better
    end where there is none."""
    if all(ratio(text, ground) >= LEAST for ground in grounds):
        return text
    solid = grounds[0] + text if text.a < 1 else text
    end = max((BLACK, WHITE), key=lambda colour: min(ratio(colour, ground) for ground in grounds))
    for step in range(_STEPS + 1):
        colour = solid.blend(end, step / _STEPS)
        if all(ratio(colour, ground) >= LEAST for ground in grounds):
            return colour
    return end


def _parsed(text: str | None) -> Color | None:
    """A colour; None for what Textual finds by itself ("auto"), and for what is none."""
    if text is None or text.startswith("auto"):
        return None
    try:
        return Color.parse(text)
    except ColorParseError:
        return None


def _luminance(colour: Color) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = (value / 255 for value in (colour.r, colour.g, colour.b))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
