"""A checkpoint that is a base and adapters: a folder of its own with the texts of both, which names
where the weights lie.

Only this program writes one, for the stages of a build: whoever names a folder by hand is refused
one (see `refuse_by_hand`), since it leads to files elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.checkpoint.adapter import TEMPLATE_FILES, TOKENIZER_FILES, Adapter
from packager.checkpoint.chat_templates import DEFAULT, templates_of
from packager.checkpoint.folder import (
    ADDITIONAL_TEMPLATES,
    INDEX,
    checkpoint_files,
    is_weights,
    read_json,
)
from packager.errors import bad_input, usage
from packager.files import write_atomically, write_json
from packager.json_values import at, objects_at

FILE = "adapted.json"


@dataclass(frozen=True, slots=True)
class Composed:
    """Where the weights of a base lie, and its adapters in the order in which they are merged."""

    base: Path
    adapters: tuple[tuple[Path, float], ...]


def read(folder: Path) -> Composed | None:
    """What a folder is composed of; None for an ordinary checkpoint. Raises PackError (exit code 6)
    for a file that does not say it."""
    path = folder / FILE
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        return Composed(
            Path(os.path.normpath(folder / at(data, "base", str))),
            tuple(
                (Path(at(row, "folder", str)), float(at(row, "scale", float)))
                for row in objects_at(data, "adapters")
            ),
        )
    except (TypeError, ValueError):
        raise bad_input(
            f"{path} does not say what the checkpoint is composed of.",
            "`qwen-pack cache --clear` empties the cache.",
        ) from None


def files_of(folder: Path, composed: Composed | None) -> dict[str, Path]:
    """The files of a checkpoint by name, weights where they lie. Raises PackError as
    `checkpoint_files`."""
    files = checkpoint_files(folder)
    if composed is None:
        return files
    base = checkpoint_files(composed.base)
    return files | {name: path for name, path in base.items() if is_weights(name) or name == INDEX}


def refuse_by_hand(folder: Path) -> None:
    """Raise PackError (usage) for a composed folder that somebody names as a checkpoint."""
    if (folder / FILE).exists():
        raise usage(
            f"{folder} is what a build with --lora keeps for itself ({FILE}).",
            "Name the base, and the adapter with --lora.",
        )


def compose(folder: Path, base: Path, adapters: Sequence[Adapter]) -> None:
    """Write the folder: texts of the base, over them those that an adapter was saved with.

    Raises PackError (exit code 6) where two adapters bring tokenizers that differ.
    """
    files = {
        name: path
        for name, path in checkpoint_files(base).items()
        if not is_weights(name) and name != INDEX
    }
    template = _template(files)
    tokenizer = _same(adapters, "tokenizer.json")
    if tokenizer is not None:
        files = {name: path for name, path in files.items() if name not in TOKENIZER_FILES}
        files |= {name: path for name, path in tokenizer.items() if name in TOKENIZER_FILES}
    for name in TEMPLATE_FILES:
        bringing = _same(adapters, name)
        if bringing is not None:
            own = (*TEMPLATE_FILES, f"{ADDITIONAL_TEMPLATES}/")
            files = {other: path for other, path in files.items() if not other.startswith(own)}
            files[name] = bringing[name]
            break
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, path.read_bytes())
    if tokenizer is not None and template is not None and _template(files) is None:
        write_atomically(folder / TEMPLATE_FILES[0], template.encode())
    base_path = os.path.relpath(base, folder) if base.is_relative_to(folder.parent) else str(base)
    rows = [{"folder": str(adapter.folder), "scale": adapter.scale} for adapter in adapters]
    write_json(folder / FILE, {"base": base_path, "adapters": rows})


def _template(files: dict[str, Path]) -> str | None:
    path = files.get("tokenizer_config.json")
    return templates_of(files, read_json(path) if path is not None else {}).get(DEFAULT)


def _same(adapters: Sequence[Adapter], name: str) -> dict[str, Path] | None:
    """The files of the adapters that bring the named one: those of the first, where all agree."""
    bringing = [adapter for adapter in adapters if name in adapter.files]
    for other in bringing[1:]:
        if _content(other.files[name]) != _content(bringing[0].files[name]):
            raise bad_input(
                f"The adapters in {bringing[0].folder} and {other.folder} bring another {name} "
                "each.",
                "Only adapters of one vocabulary and one template can be merged together.",
            )
    return dict(bringing[0].files) if bringing else None


def _content(path: Path) -> object:
    return read_json(path) if path.suffix == ".json" else path.read_bytes()
