"""Published parameter counts, and what the shape says each of them should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from packager.catalog.schema import check, read, source_text, wrong
from packager.json_values import JsonObject
from packager.shape import tensors

if TYPE_CHECKING:
    from packager.catalog.variant import Variant

FILE = Path(__file__).with_name("parameters.toml")
_PRINTED = ("total", "non_embedding", "active", "active_non_embedding")
_TYPES: Mapping[str, type] = {
    "sources": dict,
    "differences": dict,
    "stored": dict,
    "stored_differences": dict,
    "printed": list,
}
_ROW: Mapping[str, type] = {
    "variants": list,
    **dict.fromkeys(_PRINTED, int),
    "source": str,
    "tolerance": float,
    "reason": str,
}


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """A figure that somebody published.

    `counts` says of what: "stored" is everything in the checkpoint's files, the others are rounded
    figures in print. `difference` is the key of a known reason why the figure is not the plain sum,
    `reason` the sentence for it; `tolerance` is the relative rounding error of a printed figure.
    """

    counts: str
    value: int
    source: str
    difference: str | None = None
    reason: str | None = None
    tolerance: float = 0.0

    def as_dict(self) -> JsonObject:
        """JSON form, one key per field."""
        return asdict(self)


def parameter_counts(repo_id: str) -> tuple[ParameterCount, ...]:
    """The published counts of one checkpoint; empty where there are none."""
    return _published().get(repo_id, ())


def expected(variant: Variant, count: ParameterCount) -> int | None:
    """What the shape says the figure should be, known differences applied; None where it is no
    count at all."""
    shape = variant.shape
    if shape is None or variant.params_total is None or count.difference == "estimate":
        return None
    # A tied matrix is one; an untied output matrix belongs to the embeddings as well.
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    match count.counts:
        case "stored":
            return variant.params_total + _stored_too(variant, count.difference)
        case "total":
            return variant.params_total
        case "non_embedding":
            return variant.params_total - embeddings
        case "active":
            return shape.active_parameters()
        case _:
            return shape.active_parameters() - embeddings


def _stored_too(variant: Variant, difference: str | None) -> int:
    shape = variant.shape
    assert shape is not None
    match difference:
        case "redundant-output":
            return shape.vocab * shape.hidden
        case "draft-module":
            return variant.params_mtp or 0
        case "vectors-omitted":
            return -sum(
                spec.elements
                for spec in tensors(shape)
                if len(spec.shape) == 1 or spec.name.endswith("shared_expert_gate.weight")
            )
        case _:
            return 0


def read_counts(path: Path) -> dict[str, tuple[ParameterCount, ...]]:
    """Every count of the file by repo id. Raises PackError that names file and key."""
    document = check(read(path), _TYPES, tuple(_TYPES), str(path))
    sources, reasons = document["sources"], document["differences"]
    by_variant: dict[str, list[ParameterCount]] = {}
    stored = source_text("stored", sources, f"{path}: stored")
    for repo_id, value in document["stored"].items():
        if type(value) is not int or value <= 0:
            raise wrong(
                f"{path}: stored.{repo_id}", f"is {value!r}; a count is a positive whole number."
            )
        key = document["stored_differences"].get(repo_id)
        if key is not None and key not in reasons:
            raise wrong(
                f"{path}: stored_differences.{repo_id}",
                f"is {key!r}, which [differences] does not define.",
            )
        by_variant.setdefault(repo_id, []).append(
            ParameterCount("stored", value, stored, key, reasons.get(key) if key else None)
        )
    for index, row in enumerate(document["printed"]):
        where = f"{path}: printed[{index}]"
        check(row, _ROW, ("variants", "source"), where)
        if "tolerance" in row and "reason" not in row:
            raise wrong(where, "has a tolerance without a reason.")
        source, tolerance = (
            source_text(row["source"], sources, f"{where}.source"),
            row.get("tolerance", 0.01),
        )
        for repo_id in row["variants"]:
            rows = [
                ParameterCount(key, row[key], source, None, row.get("reason"), tolerance)
                for key in _PRINTED
                if key in row
            ]
            by_variant.setdefault(repo_id, []).extend(rows)
    return {repo_id: tuple(rows) for repo_id, rows in by_variant.items()}


@cache
def _published() -> dict[str, tuple[ParameterCount, ...]]:
    return read_counts(FILE)
