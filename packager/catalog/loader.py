"""From the catalogue's TOML files to Variants.

`shapes.toml` holds every distinct geometry once, `licenses.toml` the licences; files whose names
begin with `qwen` hold the variants, each of which inherits from the table of its family. Sources
are defined once per file and named by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.catalog import schema
from packager.catalog.schema import check, source_text, wrong
from packager.catalog.variant import Variant
from packager.shape import Experts, Hybrid, Shape

FOLDER = Path(__file__).parent
VARIANT_FILES = "qwen*.toml"
# What transformers' configuration classes take where config.json is silent.
DEFAULTS = {"rope_theta": 10_000.0, "rms_eps": 1e-6, "context": 32_768}
# Any in the tables below: TOML, each key of which `check` has held against its kind.
_GEOMETRY = ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab")


def read_all(folder: Path = FOLDER) -> tuple[Variant, ...]:
    """Every variant of the files in `folder`, file by file in the order of their names.

    Raises PackError that names file and key of the first mistake.
    """
    shapes = _read_shapes(folder / "shapes.toml")
    licenses = read_licenses(folder / "licenses.toml")
    variants = [
        variant
        for path in sorted(folder.glob(VARIANT_FILES))
        for variant in _read_variants(path, shapes, licenses)
    ]
    by_id: dict[str, Variant] = {}
    for variant in variants:
        if by_id.setdefault(variant.repo_id, variant) is not variant:
            raise wrong(str(folder), f"lists {variant.repo_id} twice.")
    for variant in variants:
        if variant.nearest is not None and variant.nearest not in by_id:
            raise wrong(
                str(folder),
                f"names {variant.nearest!r} as nearest to {variant.repo_id}, which is not listed.",
            )
    return tuple(variants)


def _read_shapes(path: Path) -> dict[str, dict[str, Any]]:
    document = check(
        schema.read(path), {"sources": dict, "shapes": dict}, ("sources", "shapes"), str(path)
    )
    for name, table in document["shapes"].items():
        where = f"{path}: shapes.{name}"
        check(table, schema.SHAPE, (*_GEOMETRY, "parameters", "source"), where)
        table["source"] = source_text(table["source"], document["sources"], f"{where}.source")
        if "experts" in table:
            check(
                table["experts"],
                schema.EXPERTS,
                ("count", "active", "intermediate"),
                f"{where}.experts",
            )
            table["experts"] = Experts(**table["experts"])
        if "hybrid" in table:
            check(table["hybrid"], schema.HYBRID, tuple(schema.HYBRID), f"{where}.hybrid")
            table["hybrid"] = Hybrid(**table["hybrid"])
    shapes: dict[str, dict[str, Any]] = document["shapes"]
    return shapes


def read_licenses(path: Path = FOLDER / "licenses.toml") -> dict[str, dict[str, Any]]:
    """Every licence by its id; PackError names file and key of the first mistake."""
    document = check(schema.read(path), {"licenses": dict}, ("licenses",), str(path))
    for name, table in document["licenses"].items():
        check(
            table,
            schema.LICENSE,
            ("name", "research_only", "spdx", "source"),
            f"{path}: licenses.{name}",
        )
    licenses: dict[str, dict[str, Any]] = document["licenses"]
    return licenses


def _read_variants(
    path: Path, shapes: Mapping[str, Any], licenses: Mapping[str, Any]
) -> list[Variant]:
    tables: schema.Types = {"sources": dict, "families": dict, "variants": list}
    document = check(schema.read(path), tables, tuple(tables), str(path))
    families = document["families"]
    for name, table in families.items():
        check(table, schema.VARIANT, (), f"{path}: families.{name}")
    variants = []
    for index, row in enumerate(document["variants"]):
        name = row.get("repo_id") if isinstance(row, dict) else None
        where = f"{path}: variants[{index}] ({name})" if name else f"{path}: variants[{index}]"
        check(row, schema.VARIANT, ("repo_id", "family"), where)
        if row["family"] not in families:
            raise wrong(
                f"{where}.family", f"is {row['family']!r}, which [families] does not define."
            )
        family = families[row["family"]]
        whole = {
            **family,
            **row,
            "sources": {**family.get("sources", {}), **row.get("sources", {})},
        }
        variants.append(_variant(whole, document["sources"], shapes, licenses, where))
    return variants


def _variant(
    row: dict[str, Any],
    sources: Mapping[str, str],
    shapes: Mapping[str, Any],
    licenses: Mapping[str, Any],
    where: str,
) -> Variant:
    for key in schema.ALWAYS:
        if key not in row:
            raise wrong(where, f"has no {key!r}, nor has its family.")
    for key, group in schema.NEEDS_SOURCE.items():
        if key in row and group not in row["sources"]:
            raise wrong(
                f"{where}.sources", f"has no {group!r}, the source of {key} = {row[key]!r}."
            )
    license_id = row.get("license")
    if license_id is not None and license_id not in licenses:
        raise wrong(f"{where}.license", f"is {license_id!r}, which licenses.toml does not define.")
    license_table = licenses[license_id] if license_id is not None else {}
    geometry = _geometry(row, shapes, where)
    base = row.get("base", False)
    return Variant(
        repo_id=row["repo_id"],
        family=row["family"],
        kind=row["kind"],
        base=base,
        thinking="never" if base else row.get("thinking", "never"),
        model_type=row["model_type"],
        architecture=row["architecture"],
        release_date=row.get("released"),
        license=license_id,
        license_name=license_table.get("name"),
        research_only=license_table.get("research_only", False),
        modality_in=tuple(row.get("modality_in", "text").split()),
        modality_out=tuple(row.get("modality_out", "text").split()),
        shape=_shape(row, geometry) if geometry else None,
        shape_verified=geometry is not None and not row.get("unverified", False),
        assumed=tuple(key for key in DEFAULTS if key not in row) if geometry else (),
        params_total=row.get("parameters", geometry["parameters"] if geometry else None),
        params_text=geometry["parameters"] if geometry else None,
        params_active=geometry.get("active") if geometry else None,
        params_vision=row.get("vision"),
        params_audio=row.get("audio"),
        params_mtp=row.get("mtp"),
        context_native=row.get("context"),
        context_extended=row.get("context_extended"),
        published_precisions=("BF16", *row.get("quantized", "").split()),
        unbuildable=row.get("unbuildable"),
        nearest=row.get("nearest"),
        notes=tuple(row.get("notes", ())),
        sources={
            group: source_text(keys, sources, f"{where}.sources.{group}")
            for group, keys in row["sources"].items()
        },
    )


def _geometry(row: dict[str, Any], shapes: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    if "shape" not in row:
        return None
    if row["shape"] not in shapes:
        raise wrong(f"{where}.shape", f"is {row['shape']!r}, which shapes.toml does not define.")
    geometry: dict[str, Any] = shapes[row["shape"]]
    return geometry


def _shape(row: dict[str, Any], geometry: dict[str, Any]) -> Shape:
    return Shape(
        model_type=row["model_type"],
        **{key: geometry[key] for key in _GEOMETRY},
        tied=geometry.get("tied", False),
        qkv_bias=geometry.get("qkv_bias", False),
        qk_norm=geometry.get("qk_norm", False),
        context=row.get("context", DEFAULTS["context"]),
        rope_theta=float(row.get("rope_theta", DEFAULTS["rope_theta"])),
        rms_eps=row.get("rms_eps", DEFAULTS["rms_eps"]),
        experts=geometry.get("experts"),
        hybrid=geometry.get("hybrid"),
    )
