"""From the catalogue's TOML files to Variants.

`shapes.toml` holds every distinct geometry once, `towers.toml` those of vision towers and audio
encoders,
`licenses.toml` the licences; files whose names begin with `qwen` hold the variants, each of which
inherits from the table of its family. Sources are defined once per file and named by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from packager.catalog import own, schema
from packager.catalog.schema import check, source_text, wrong
from packager.catalog.variant import Variant
from packager.errors import PackError, bad_input
from packager.foreign import load_toml
from packager.shape import Experts, Hybrid, Shape, Tower
from packager.shape.audio import HEARING, AudioTower

Table: TypeAlias = dict[str, Any]
"""A table of TOML. Any: `check` has held each of its keys against the kind that it has."""

FOLDER = Path(__file__).parent
VARIANT_FILES = "qwen*.toml"
# What transformers' configuration classes take where config.json is silent.
DEFAULTS = {"rope_theta": 10_000.0, "rms_eps": 1e-6, "context": 32_768}
_GEOMETRY = ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab")


def read_all(folder: Path = FOLDER, own_rows: bool = True) -> tuple[Variant, ...]:
    """Every variant of the files in `folder`, file by file in the order of their names, then the
    user's own.

    Raises PackError that names file and key of the first mistake.
    """
    shapes = _read_shapes(folder / "shapes.toml")
    towers = _read_towers(folder / "towers.toml")
    licenses = read_licenses(folder / "licenses.toml")
    variants = [
        variant
        for path in sorted(folder.glob(VARIANT_FILES))
        for variant in _read_variants(path, shapes, towers, licenses)
    ]
    if own_rows:
        known = {variant.repo_id.casefold() for variant in variants}
        # A later release of the catalogue may bring what the user had to add.
        variants += [row for row in read_own(licenses) if row.repo_id.casefold() not in known]
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


def read_own(licenses: Mapping[str, Any]) -> list[Variant]:
    """The user's rows, in the order of their files. Raises PackError (exit code 6) naming file and
    key."""
    all_variants: list[Variant] = []
    file_of: dict[str, Path] = {}
    for path in own.files():
        try:
            document = load_toml(own.text_of(path))
        except ValueError as error:
            raise bad_input(f"{path} cannot be read: {error}.", own.hint(path)) from None
        try:
            shapes = _shapes_of(
                {key: document.get(key) for key in ("sources", "shapes")}, str(path)
            )
            rows = {key: document[key] for key in document if key != "shapes"}
            variants = _variants_of(rows, str(path), shapes, {}, licenses, strict=False)
        except PackError as error:
            raise own.renamed(error, path) from None
        for variant in variants:
            own.check_shape(variant, path)
            first = file_of.setdefault(variant.repo_id.casefold(), path)
            if first != path:
                raise bad_input(
                    f"{path} and {first.name} both have a row of {variant.repo_id}.",
                    own.hint(path),
                )
        all_variants += variants
    return all_variants


def _read_shapes(path: Path) -> dict[str, Table]:
    return _shapes_of(schema.read(path), str(path))


def _shapes_of(read: Any, path: str) -> dict[str, Table]:
    document = check(read, {"sources": dict, "shapes": dict}, ("sources", "shapes"), path)
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
    shapes: dict[str, Table] = document["shapes"]
    return shapes


def _read_towers(path: Path) -> dict[str, Table]:
    document = check(
        schema.read(path),
        {"sources": dict, "towers": dict, "audio": dict},
        ("sources", "towers"),
        str(path),
    )
    towers: dict[str, Table] = document["towers"]
    for name, table in document.get("audio", {}).items():
        where = f"{path}: audio.{name}"
        widths = ("generation", "hidden", "intermediate", "depth", "heads", "source")
        check(table, schema.AUDIO_TOWER, widths, where, {"generation": HEARING})
        table["source"] = source_text(table["source"], document["sources"], f"{where}.source")
    for name, table in towers.items():
        where = f"{path}: towers.{name}"
        needed = ("generation", "hidden", "intermediate", "depth", "heads", "patch", "source")
        check(table, schema.TOWER, needed, where)
        table["source"] = source_text(table["source"], document["sources"], f"{where}.source")
    encoders: dict[str, Table] = document.get("audio", {})
    return towers | encoders


def read_licenses(path: Path = FOLDER / "licenses.toml") -> dict[str, Table]:
    """Every licence by its id; PackError names file and key of the first mistake."""
    document = check(schema.read(path), {"licenses": dict}, ("licenses",), str(path))
    for name, table in document["licenses"].items():
        check(
            table,
            schema.LICENSE,
            ("name", "research_only", "spdx", "source"),
            f"{path}: licenses.{name}",
        )
    licenses: dict[str, Table] = document["licenses"]
    return licenses


def _read_variants(
    path: Path,
    shapes: Mapping[str, Any],
    towers: Mapping[str, Any],
    licenses: Mapping[str, Any],
) -> list[Variant]:
    return _variants_of(schema.read(path), str(path), shapes, towers, licenses)


def _variants_of(
    read: Any,
    path: str,
    shapes: Mapping[str, Any],
    towers: Mapping[str, Any],
    licenses: Mapping[str, Any],
    strict: bool = True,
) -> list[Variant]:
    """`strict`: every licence must be one of licenses.toml."""
    tables: schema.Types = {"sources": dict, "families": dict, "variants": list}
    document = check(read, tables, tuple(tables), path)
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
        variants.append(
            _variant(whole, document["sources"], shapes, towers, licenses, where, strict)
        )
    return variants


def _variant(
    row: Table,
    sources: Mapping[str, str],
    shapes: Mapping[str, Any],
    towers: Mapping[str, Any],
    licenses: Mapping[str, Any],
    where: str,
    strict: bool,
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
    if license_id is not None and license_id not in licenses and strict:
        raise wrong(f"{where}.license", f"is {license_id!r}, which licenses.toml does not define.")
    license_table = licenses.get(license_id or "", {})
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
        tower=_tower(row, geometry, towers, where) if geometry else None,
        audio_tower=_audio_tower(row, geometry, towers, where) if geometry else None,
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
        text_alone=row.get("text_alone"),
        notes=tuple(row.get("notes", ())),
        sources={
            group: source_text(keys, sources, f"{where}.sources.{group}")
            for group, keys in row["sources"].items()
        },
        trained_tokens=row.get("trained_tokens"),
        system_prompt=row.get("system_prompt"),
    )


def _geometry(row: Table, shapes: Mapping[str, Any], where: str) -> Table | None:
    if "shape" not in row:
        return None
    if row["shape"] not in shapes:
        raise wrong(f"{where}.shape", f"is {row['shape']!r}, which shapes.toml does not define.")
    geometry: Table = shapes[row["shape"]]
    return geometry


def _tower(row: Table, geometry: Table, towers: Mapping[str, Any], where: str) -> Tower | None:
    """The tower with the width of the decoder; its weights must be as many as the row says."""
    if "tower" not in row:
        return None
    if "patch" not in towers.get(row["tower"], {}):
        raise wrong(f"{where}.tower", f"is {row['tower']!r}, which towers.toml does not define.")
    fields = {key: value for key, value in towers[row["tower"]].items() if key != "source"}
    tower = Tower.from_dict({**fields, "out": geometry["hidden"]})
    if tower.parameters() != row.get("vision"):
        raise wrong(
            f"{where}.tower",
            f"has {tower.parameters()} weights, and vision says {row.get('vision')}.",
        )
    return tower


def _audio_tower(
    row: Table, geometry: Table, towers: Mapping[str, Any], where: str
) -> AudioTower | None:
    """The audio encoder likewise."""
    if "audio_tower" not in row:
        return None
    name, key = row["audio_tower"], f"{where}.audio_tower"
    if towers.get(name, {}).get("generation") not in HEARING:
        raise wrong(key, f"is {name!r}, which towers.toml does not define.")
    fields = {field: value for field, value in towers[name].items() if field != "source"}
    tower = AudioTower(**{"channels": 0, **fields}, out=geometry["hidden"])
    if tower.parameters() != row.get("audio"):
        raise wrong(key, f"has {tower.parameters()} weights, and audio says {row.get('audio')}.")
    return tower


def _shape(row: Table, geometry: Table) -> Shape:
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
