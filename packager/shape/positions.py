"""What a config.json says about rotary positions, read once for the reference and for every engine.

Where two places disagree, transformers 5.5 decides (RotaryEmbeddingConfigMixin in
modeling_rope_utils.py):

    rope_scaling, where it is there and not empty, takes the place of rope_parameters as a whole
    rope_theta inside of that table, then beside it, then 10,000
    rope_type, then type, then `default`
    original_max_position_embeddings beside the table, then inside of it, then
        max_position_embeddings
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from packager.errors import PackError, bad_input
from packager.shape.fields import Fields
from packager.shape.model import Widths

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
"""The rope types that are computed; `mrope` is `default` for text, which has one position in all
three axes."""

_DEFAULT_THETA = 10_000.0
_BETA_FAST, _BETA_SLOW = 32.0, 1.0
_HYBRID_PART = 0.25


@dataclass(frozen=True, slots=True)
class Positions:
    """The rotary embedding of one decoder.

    `width` elements of every head are turned. `amplitude` multiplies cosine and sine. `original` is
    the context, in tokens, before any scaling. `low`, `high` are llama3's frequency factors;
    `short`, `long` are longrope's divisors, one per pair of elements. `context` is
    max_position_embeddings.
    """

    kind: str
    theta: float
    width: int
    context: int
    factor: float = 1.0
    amplitude: float = 1.0
    original: int = 0
    beta_fast: float = _BETA_FAST
    beta_slow: float = _BETA_SLOW
    truncate: bool = True
    low: float = 1.0
    high: float = 4.0
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether nothing is scaled."""
        return self.kind == "default"

    @property
    def fixed_up_to(self) -> int | None:
        """The longest sequence for which the frequencies are those of shorter ones; None where they
        never change."""
        if self.kind == "dynamic":
            return self.context
        return self.original if self.kind == "longrope" else None

    @property
    def ordinary_ramp(self) -> bool:
        """Whether YaRN's ramp lies where its paper has it, which is all that llama.cpp computes."""
        return (self.beta_fast, self.beta_slow, self.truncate) == (_BETA_FAST, _BETA_SLOW, True)


def theta_of(fields: Fields, default: float = _DEFAULT_THETA) -> float:
    """The base of the frequencies. `fields` is the text decoder's own table."""
    table = _table(fields)
    if table is not None and "rope_theta" in table:
        return table.number("rope_theta", default)
    return fields.number("rope_theta", default)


def positions_of(config: Mapping[str, Any], shape: Widths, where: str) -> Positions:
    """The positions that the text decoder's own table of a config.json describes.

    Raises PackError (exit code 6) naming `where` and the key: for a rope type that is not computed,
    for a number that is missing or impossible, and for a different rope per kind of layer, which no
    Qwen has.
    """
    fields = Fields(config, where)
    table = _table(fields)
    theta = theta_of(fields)
    # The first generation has its base under a name of its own, which the shape knows.
    theta = shape.rope_theta if "rotary_emb_base" in fields else theta
    if table is None:
        return Positions("default", theta, _width(fields, None, shape, "default"), shape.context)
    kind = table.text("rope_type", table.text("type", "default"))
    kind = "default" if kind == "mrope" else kind
    if kind not in KINDS:
        raise table.wrong(
            "rope_type", f"is {kind!r}, which is not computed here; {', '.join(KINDS)} are"
        )
    plain = Positions(kind, theta, _width(fields, table, shape, kind), shape.context)
    if kind == "default":
        return plain
    if kind == "dynamic" and plain.width <= 2:
        raise table.wrong(
            "rope_type", f"is 'dynamic', which heads with {plain.width} turned elements do not have"
        )
    if kind in ("linear", "dynamic"):
        return replace(plain, factor=_needed(table, "factor"))
    original = fields if "original_max_position_embeddings" in fields else table
    plain = replace(
        plain, original=original.count("original_max_position_embeddings", shape.context)
    )
    if kind == "llama3":
        low, high = _needed(table, "low_freq_factor"), _needed(table, "high_freq_factor")
        if low == high:
            raise table.wrong("high_freq_factor", f"is {high!r}, as low_freq_factor")
        return replace(plain, factor=_needed(table, "factor"), low=low, high=high)
    return _longrope(table, plain) if kind == "longrope" else _yarn(table, plain)


def _yarn(table: Fields, plain: Positions) -> Positions:
    factor = _factor(table, plain.context / plain.original)
    if plain.theta == 1:
        raise table.wrong("rope_theta", "is 1, with which YaRN has no frequencies")
    return replace(
        plain,
        factor=factor,
        amplitude=_yarn_amplitude(table, factor),
        # A zero counts as missing, as in transformers.
        beta_fast=table.number("beta_fast", _BETA_FAST, zero=True) or _BETA_FAST,
        beta_slow=table.number("beta_slow", _BETA_SLOW, zero=True) or _BETA_SLOW,
        truncate=table.flag("truncate", True),
    )


def _yarn_amplitude(table: Fields, factor: float) -> float:
    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if "attention_factor" in table:
        return table.number("attention_factor", 1.0)
    mscale, all_dimensions = (
        table.number(key, 0.0, zero=True) for key in ("mscale", "mscale_all_dim")
    )
    return scale(mscale) / scale(all_dimensions) if mscale and all_dimensions else scale(1.0)


def _longrope(table: Fields, plain: Positions) -> Positions:
    factor, trained = _factor(table, plain.context / plain.original, needed=False), plain.original
    amplitude = 1.0
    if factor > 1 and trained > 1:
        amplitude = math.sqrt(1 + math.log(factor) / math.log(trained))
    return replace(
        plain,
        factor=factor,
        amplitude=table.number("attention_factor", amplitude),
        short=_divisors(table, "short_factor", plain.width),
        long=_divisors(table, "long_factor", plain.width),
    )


def _divisors(table: Fields, key: str, width: int) -> tuple[float, ...]:
    values = table.listing(key)
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        for value in values
    )
    if len(values) != width // 2 or not numbers:
        raise table.wrong(key, f"is not a list of {width // 2} positive numbers")
    return tuple(float(value) for value in values)


def _factor(table: Fields, stretched: float, *, needed: bool = True) -> float:
    """`factor`; null says: as much longer as the context is."""
    if "factor" in table:
        return table.number("factor", 1.0)
    if needed and not table.is_null("factor"):
        raise table.wrong("factor", "is missing")
    return stretched


def _needed(table: Fields, key: str) -> float:
    if key not in table:
        raise table.wrong(key, "is missing")
    return table.number(key, 1.0)


def _table(fields: Fields) -> Fields | None:
    for key in ("rope_scaling", "rope_parameters"):
        if key in fields and not fields.is_empty(key):
            table = fields.table(key)
            if table.nested():
                raise fields.wrong(
                    key, "describes other positions for every kind of layer, which no Qwen computes"
                )
            return table
    return None


def _width(fields: Fields, table: Fields | None, shape: Widths, kind: str) -> int:
    """How many elements of a head are turned: a quarter in the hybrids unless they say otherwise,
    else all."""
    if shape.hybrid is None:
        part = _part(table) or _part(fields)
        if part not in (None, 1.0) and kind != "default":
            raise fields.wrong(
                "partial_rotary_factor", f"is {part!r}, which {shape.model_type} cannot compute"
            )
        return shape.head_dim
    beside, inside = _part(fields), _part(table)
    # Where something is scaled, transformers puts the outer one over the inner one, and knows a
    # quarter where neither is.
    part = (inside or beside) if kind == "default" else beside
    width = int(shape.head_dim * (part or _HYBRID_PART))
    if width < 2 or width % 2:
        raise fields.wrong("partial_rotary_factor", f"leaves {width} elements of a head to turn")
    return width


def _part(fields: Fields | None) -> float | None:
    if fields is None or "partial_rotary_factor" not in fields:
        return None
    part = fields.number("partial_rotary_factor", 1.0)
    if part > 1:
        raise fields.wrong("partial_rotary_factor", f"is {part!r}, more than a whole head")
    return part


def not_computed(engine: str, what: str, way_on: str) -> PackError:
    """The refusal (exit code 6) of an engine that does not compute what a config.json asks for."""
    return bad_input(
        f"config.json asks for {what}, which {engine} does not compute for Qwen.", way_on
    )
