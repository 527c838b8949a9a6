"""Which files of a folder make a checkpoint, and which of them are safe to read."""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from packager import limits
from packager.checkpoint.header import refuse_pointer
from packager.errors import PackError, bad_input, usage
from packager.foreign import bounded_bytes, names_in, parse_json
from packager.json_values import JsonObject

INDEX = "model.safetensors.index.json"
POOLING = "1_Pooling/config.json"
"""What Sentence Transformers keep of how an embedding is made of the states."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""What PEFT saves of an adapter."""
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""What says how pictures are prepared; transformers 5 saves the second."""
ADDITIONAL_TEMPLATES = "additional_chat_templates"
"""The folder of a checkpoint that holds its chat templates by name, where there are several."""

_WEIGHTS = re.compile(r"model[\w.-]*\.safetensors")
_TEXTS = {
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "qwen.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "config_sentence_transformers.json",
    POOLING,
    *PREPROCESSORS,
}
_TEMPLATE = re.compile(rf"{ADDITIONAL_TEMPLATES}/[\w-][\w.-]*\.jinja")
_LICENSE = re.compile(r"(LICEN[CS]E|NOTICE|COPYING)[\w. -]*", re.IGNORECASE)
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_OF_ADAPTERS = {
    ADAPTER_CONFIG: limits.ADAPTER_CONFIG_BYTES,
    ADAPTER_WEIGHTS: limits.ADAPTER_BYTES,
}
_CONVERTED = re.compile(r".+\.gguf|openvino_\w+\.(xml|bin)|.+\.onnx(\.data)?", re.IGNORECASE)
"""Graphs and weights that somebody else has converted."""
_DEEPEST = 5
"""Folders below a snapshot in which a converted model may lie."""
_LARGE_TEXTS = {INDEX, "tokenizer.json", "vocab.json", "merges.txt", "qwen.tiktoken"}


def belongs(name: str) -> bool:
    """Whether a file of that path, from the top of a repository or folder, is part of a
    checkpoint."""
    known = (_WEIGHTS, _TEMPLATE)
    return name in _TEXTS or any(kind.fullmatch(name) for kind in known) or is_license(name)


def is_license(name: str) -> bool:
    """Whether the file holds a licence or a notice."""
    return bool(_LICENSE.fullmatch(name))


def most_bytes(name: str) -> int | None:
    """How large a file of that name can be; None for weights of a model and for graphs, which have
    no limit."""
    if is_weights(name) or _CONVERTED.fullmatch(name):
        return None
    if name in _OF_ADAPTERS:
        return _OF_ADAPTERS[name]
    if is_license(name):
        return limits.LICENSE_BYTES
    return limits.TEXT_BYTES if name in _LARGE_TEXTS else limits.SETTINGS_BYTES


def refuse_oversize(where: str, name: str, size: int) -> None:
    """Raise PackError (exit code 6) for a file that is far larger than one of that name can be."""
    most = most_bytes(name)
    if most is not None and size > most:
        raise bad_input(
            f"{where} has {size} bytes, far more than a file of its kind can have ({most}).",
            "Get the file again from where it was published.",
        )


def is_weights(name: str) -> bool:
    """Whether the file holds weights of the model proper."""
    return bool(_WEIGHTS.fullmatch(name))


def is_pickle(name: str) -> bool:
    """Whether the file holds weights in a form that runs code when it is loaded."""
    return Path(name).suffix.lower() in _PICKLES


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint by name, in the order of their names.

    Raises PackError when there is no such folder, when a file is a link that leaves it (links into
    the `blobs` of the same hub cache repository are the hub's own way of storing a snapshot), or is
    no regular file.
    """
    try:
        names = sorted(name for name in _names(folder) if belongs(name))
    except FileNotFoundError:
        raise usage(f"There is no folder {folder}.", "Check the path.") from None
    except NotADirectoryError:
        raise usage(
            f"{folder} is a file, not a folder.",
            "Name the folder that holds config.json and the safetensors files.",
        ) from None
    return _checked(folder, names)


def safe_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Those of the named files that are there, checked as `checkpoint_files` checks its own.

    Raises PackError like it.
    """
    return _checked(folder, [name for name in names if os.path.lexists(folder / name)])


def converted_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Those of the named files that are there, whose sizes nothing bounds: graphs and weights that
    an engine reads. Raises PackError as `checkpoint_files` for links and for what is no file."""
    present = [name for name in names if os.path.lexists(folder / name)]
    return _checked(folder, present, bounded=False)


def _checked(folder: Path, names: Iterable[str], *, bounded: bool = True) -> dict[str, Path]:
    files = {name: folder / name for name in names}
    blobs = _blobs(folder)
    for path in files.values():
        try:
            target = path.resolve(strict=True)
            status = target.stat()
        except (OSError, RuntimeError):
            raise bad_input(
                f"{path} is a link to nothing.", "Get the file again from where it was published."
            ) from None
        if path.is_symlink() and (blobs is None or target.parent != blobs):
            raise bad_input(
                f"{path} is a link out of its folder, to {target}.",
                "Copy the file itself into the folder.",
            )
        if not stat.S_ISREG(status.st_mode):
            raise bad_input(
                f"{path} is not a regular file.", "Name a folder that holds the files themselves."
            )
        if bounded:
            refuse_oversize(str(path), path.name, status.st_size)
    return files


def _names(folder: Path) -> Iterator[str]:
    """What stands in a folder, and in the two folders of it that belong to a checkpoint."""
    yield from names_in(folder)
    for name in (ADDITIONAL_TEMPLATES, POOLING.partition("/")[0]):
        inner = folder / name
        if inner.is_symlink():
            raise bad_input(f"{inner} is a link.", "Replace the link with a copy of the folder.")
        if inner.is_dir():
            yield from (f"{name}/{inner_name}" for inner_name in names_in(inner))


def _blobs(folder: Path) -> Path | None:
    """Where the hub keeps the files of this snapshot; None when the folder is none, and is in none
    (`<repo>/snapshots/<commit>`)."""
    snapshots = next(
        (path for path in folder.resolve().parents[:_DEEPEST] if path.name == "snapshots"), None
    )
    return None if snapshots is None else (snapshots.parent / "blobs").resolve()


def read_json(path: Path) -> JsonObject:
    """The JSON object in a file. Raises PackError (exit code 6) that names the file when it holds
    none."""
    value = parse_json(_bytes(path), str(path))
    if not isinstance(value, dict):
        raise bad_input(
            f"{path} holds no JSON object.", "Get the file again from where it was published."
        )
    return value


def read_text(path: Path) -> str:
    """The UTF-8 text of a file. Raises PackError (exit code 6) that names the file when it is
    none."""
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_input(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from None


def _bytes(path: Path) -> bytes:
    """What a file holds, as much as one of its name can have; a text as engines take it."""
    data = bounded_bytes(path, most_bytes(path.name) or limits.TEXT_BYTES)
    refuse_pointer(path, data)
    if data.startswith(codecs.BOM_UTF8):
        raise bad_input(
            f"{path} begins with a byte order mark, which engines take for text.",
            "Save it as UTF-8 without one.",
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise bad_input(f"{path} is in UTF-16.", "Save it as UTF-8 without a byte order mark.")
    return data


def missing_config(folder: Path) -> PackError:
    """Why a folder without config.json is not a checkpoint (exit code 6), with the folder or the
    step that leads to one."""
    no_config = f"{folder} has no config.json"
    if (folder / "adapter_config.json").exists():
        return bad_input(
            f"{no_config}: it holds an adapter.",
            f"Name its base with --model or --weights, and the adapter with --lora {folder}.",
        )
    snapshots = sorted(folder.glob("snapshots/*/config.json"))
    if snapshots:
        return bad_input(
            f"{no_config}: it is a repository in the hub's cache.",
            f"Name its snapshot: {snapshots[-1].parent}",
        )
    below = sorted(
        path for path in folder.glob("*/config.json") if not path.parent.name.startswith(".")
    )
    if below:
        return bad_input(
            f"{no_config}.", f"Name the folder of a checkpoint, such as {below[0].parent}."
        )
    return bad_input(f"{no_config}.", "Name the folder of a checkpoint.")
