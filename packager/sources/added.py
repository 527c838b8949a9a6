"""A row of the user's own catalogue, from a folder's config.json or a repository of the hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from packager import catalog
from packager.catalog import Variant, own
from packager.catalog.licences import plain
from packager.checkpoint.agreement import (
    refuse_foreign_code,
    refuse_other_inputs,
    refuse_other_tasks,
    refuse_unsupported,
)
from packager.checkpoint.chat_templates import templates_of
from packager.checkpoint.first_generation import text_only
from packager.checkpoint.folder import read_json
from packager.errors import ExitCode, PackError, usage
from packager.files import expanded
from packager.json_values import list_at
from packager.shape import Shape
from packager.sources.hub_variant import REPOSITORY, bare, descends_from, on_hub

_WORD = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)


def add(
    place: str, name: str | None = None, revision: str | None = None, offline: bool = False
) -> tuple[Variant, Path, bool]:
    """The row, its file, and whether it stands over one that was there.

    `place` is a folder with a config.json, or OWNER/NAME on the hub. A folder is called `name`, or
    `local/` and its own name. Raises PackError: 2 for a name that is no name or is in the catalogue
    already, 5 where the hub does not answer, 6 for a configuration that is none of ours.
    """
    folder = expanded(place)
    if folder.is_dir():
        repo_id = name or f"local/{folder.resolve().name}"
        _refuse_known(repo_id)
        variant, source = _in_folder(folder.resolve(), repo_id), f"{folder.resolve()}/config.json"
    elif REPOSITORY.fullmatch(place) and not place.startswith((".", "~")):
        if name is not None:
            raise usage("--name is for a folder: a repository has a name.", "Leave --name out.")
        _refuse_known(place)
        published = on_hub(place, revision, offline)
        variant, source = published, f"hub:{place} config.json and card"
    else:
        raise usage(
            f"{place!r} is neither a folder nor OWNER/NAME on the hub.",
            "Name a folder with a config.json, or a repository.",
        )
    if not _WORD.fullmatch(variant.architecture):
        variant = replace(variant, architecture="unknown")
    variant = replace(variant, license=plain(variant.license), family=variant.family or "local")
    there = own.path_of(variant.repo_id).exists()
    path = own.write(variant, source)
    catalog.forget()
    return catalog.find(variant.repo_id), path, there


def remove(name: str) -> Path:
    """Take the user's row of that name away, or a file of theirs that keeps the catalogue from
    being read. Raises PackError (usage) where there is none."""
    try:
        variant = catalog.find(name)
    except PackError as error:
        spoilt = own.file_named(name) if error.exit_code == ExitCode.INPUT else None
        if spoilt is None:
            raise
        path = spoilt
    else:
        path = own.path_of(variant.repo_id)
        if not path.is_file():
            raise usage(
                f"{variant.repo_id} is a row of the catalogue itself, not one of yours.",
                "Only what `qwen-pack models add` has written can be removed.",
            )
    path.unlink()
    catalog.forget()
    return path


def _refuse_known(repo_id: str) -> None:
    if own.NAME.fullmatch(repo_id) is None:
        raise usage(
            f"{repo_id!r} is not OWNER/NAME of letters, digits, dots, hyphens and underscores.",
            "Give one with --name.",
        )
    try:
        known = catalog.find(repo_id)
    except PackError:
        return
    if not own.path_of(known.repo_id).exists():
        raise usage(
            f"{known.repo_id} is already in the catalogue.",
            f"`qwen-pack models {known.name}` shows it.",
        )


def _in_folder(folder: Path, repo_id: str) -> Variant:
    path = folder / "config.json"
    if not path.is_file():
        raise usage(f"{folder} has no config.json.", "Name the folder of a checkpoint.")
    config = read_json(path)
    refuse_unsupported(str(path), config.get("model_type"))
    refuse_other_inputs(str(path), config)
    refuse_other_tasks(str(path), config)
    refuse_foreign_code(path, config, first=text_only(config))
    shape = Shape.from_config(config, str(path))
    tokenizer = folder / "tokenizer_config.json"
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    chats = bool(templates_of(files, read_json(tokenizer) if tokenizer.is_file() else {}))
    architecture = str((list_at(config, "architectures") or ["unknown"])[0])
    chats = chats or config.get("chat_format") == "chatml"
    note = f"Its weights are in a folder: build it with --weights {folder}"
    nearest = descends_from(shape, [])
    variant = bare(repo_id, shape, architecture, not chats)
    if nearest is None:
        return replace(variant, notes=(note,))
    return replace(
        variant,
        family=nearest.family,
        kind=nearest.kind,
        thinking=nearest.thinking if chats else "never",
        notes=(note, f"Its shape is that of {nearest.repo_id}; it has no published scores."),
    )
