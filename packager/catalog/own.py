"""The user's own rows of the catalogue: one TOML file per variant, in a folder beside no
installation.

A file has the tables of the catalogue's own files: [sources], [shapes], [families] and
[[variants]]. `qwen-pack models add` writes them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from packager.catalog import schema
from packager.catalog.variant import Variant
from packager.errors import PackError, bad_input, usage
from packager.escapes import sh, toml
from packager.shape import Shape

VARIABLE = "QWEN_PACK_CATALOGUE"
"""The variable that names another folder."""
NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_MOST_BYTES = 1 << 20
_MOST_FILES = 1000
_WORDS = ("repo_id", "family", "kind", "thinking", "model_type", "architecture")
_GEOMETRY = ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab")
_FLAGS = ("tied", "qkv_bias", "qk_norm")


def folder() -> Path | None:
    """Where the rows are kept: QWEN_PACK_CATALOGUE, or the platform's place for data; it need not
    exist. None for a user without a home folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        from packager.files import expanded

        return expanded(chosen).absolute()
    from platformdirs import user_data_path

    try:
        return user_data_path("qwen-pack", appauthor=False) / "catalogue"
    except RuntimeError:
        return None


def files() -> tuple[Path, ...]:
    """Every file of the folder, in the order of the names; none where there is no folder."""
    home = folder()
    if home is None or not home.is_dir():
        return ()
    paths = sorted(path for path in home.glob("*.toml") if path.is_file())
    if len(paths) > _MOST_FILES:
        raise bad_input(f"{home} holds {len(paths)} files.", "Remove those that are not needed.")
    return tuple(paths)


def hint(path: Path) -> str:
    """The way on where a file is spoilt."""
    name = sh(path.name)
    return f"Mend the file, or take it out of the catalogue: qwen-pack models remove {name}"


def file_named(name: str) -> Path | None:
    """The one file that a name means, where the catalogue cannot be read: that of a variant, with
    its owner or without, or the file itself. None where it is none, or not one alone."""
    wanted = name.casefold()
    endings = (f"--{wanted}.toml", *((f"{wanted.replace('/', '--')}.toml",) if "/" in name else ()))
    found = [
        path
        for path in files()
        if path.name.casefold() in (wanted, f"{wanted}.toml") or path.name.endswith(endings)
    ]
    return found[0] if len(found) == 1 else None


def text_of(path: Path) -> str:
    """The text of one file, if it is no longer than a row can be."""
    if path.stat().st_size > _MOST_BYTES:
        raise bad_input(f"{path} is larger than a row of the catalogue can be (1 MB).", hint(path))
    return path.read_text("utf-8")


def path_of(repo_id: str) -> Path:
    """The file of a variant. Raises PackError (usage) where this user has no place for it."""
    home = folder()
    if home is None:
        raise usage(
            "This user has no home folder to keep a catalogue in.",
            f"Name a folder with {VARIABLE}.",
        )
    return home / f"{repo_id.replace('/', '--').casefold()}.toml"


def check_shape(variant: Variant, path: Path) -> None:
    """Raise PackError (exit code 6) where the parameters of a row are not those of its shape."""
    if variant.shape is not None and variant.params_text != variant.shape.parameters():
        raise bad_input(
            f"{path}: parameters is {variant.params_text}, but the shape has "
            f"{variant.shape.parameters()}.",
            hint(path),
        )


def renamed(error: PackError, path: Path) -> PackError:
    """The complaint about a file of the user's, with a way on that is the user's."""
    if error.hint != schema.HINT:
        return error
    return PackError(error.message, hint(path), error.exit_code)


def write(variant: Variant, source: str) -> Path:
    """Write the row of a variant, over the one that it had. Raises PackError (exit code 6) for a
    name or shape that no row can have."""
    shape = variant.shape
    if NAME.fullmatch(variant.repo_id) is None or shape is None:
        raise bad_input(
            f"{variant.repo_id!r} with this shape cannot be added to the catalogue.",
            "A name is OWNER/NAME of letters, digits, dots, hyphens and underscores.",
        )
    # Late: reading the catalogue writes nothing.
    from packager.files import write_atomically

    path = path_of(variant.repo_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _text(variant, shape, source).encode())
    return path


def _text(variant: Variant, shape: Shape, source: str) -> str:
    lines = ["# Written by qwen-pack models add.", "[sources]", f"config = {_value(source)}", ""]
    lines += ['[shapes."own"]', *(f"{key} = {getattr(shape, key)}" for key in _GEOMETRY)]
    lines += [f"{key} = true" for key in _FLAGS if getattr(shape, key)]
    lines.append(f"parameters = {shape.parameters()}")
    if shape.experts:
        lines.append(f"active = {shape.active_parameters()}")
        lines.append(f"experts = {_table(shape.experts)}")
    if shape.hybrid:
        lines.append(f"hybrid = {_table(shape.hybrid)}")
    lines += ['source = "config"', "", f"[families.{_value(variant.family)}]", "", "[[variants]]"]
    lines += [f"{key} = {_value(getattr(variant, key))}" for key in _WORDS]
    lines += ['shape = "own"', f"base = {_value(variant.base)}"]
    if variant.license:
        lines.append(f"license = {_value(variant.license)}")
    lines += [f"context = {shape.context}", f"rope_theta = {shape.rope_theta!r}"]
    lines += [f"rms_eps = {shape.rms_eps!r}"]
    for key in ("modality_in", "modality_out"):
        lines.append(f"{key} = {_value(' '.join(getattr(variant, key)))}")
    lines.append(f"notes = [{', '.join(map(_value, variant.notes))}]")
    groups = ("repo_id", "shape", "context", "license")
    cited = ", ".join(f'{name} = "config"' for name in groups)
    lines.append(f"sources = {{ {cited} }}")
    return "\n".join(lines) + "\n"


def _table(record: Any) -> str:
    parts = (
        f"{key} = {_value(getattr(record, key))}"
        for key in record.__dataclass_fields__
        if getattr(record, key) is not None
    )
    return f"{{ {', '.join(parts)} }}"


def _value(value: Any) -> str:
    """As TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return toml(str(value))
