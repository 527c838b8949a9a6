"""A GGUF that somebody else wrote, in one file or in several: its headers, and whether the files
belong together.

Source of the names and keys of several files: llama.cpp, src/llama-model-loader.cpp and
tools/gguf-split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

from packager.errors import PackError, bad_input, usage
from packager.inspection.gguf_header import GgufFile, GgufTensor, read
from packager.limits import PACKAGE_FILES

ENDING = ".gguf"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_GET_AGAIN = "Get the file again from where it was published."


@dataclass(frozen=True)
class Given:
    """The headers of all files, in their order; `files` are their paths as they were named."""

    files: tuple[Path, ...]
    headers: tuple[GgufFile, ...] = field(repr=False)

    @property
    def head(self) -> GgufFile:
        """The first file, which has the keys."""
        return self.headers[0]

    @cached_property
    def tensors(self) -> Mapping[str, GgufTensor]:
        """Every tensor by name, in the order of the files."""
        return {tensor.name: tensor for header in self.headers for tensor in header.tensors}

    @cached_property
    def place_of(self) -> Mapping[str, Path]:
        """Which file holds a tensor."""
        return {tensor.name: head.path for head in self.headers for tensor in head.tensors}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(header.size for header in self.headers)

    @property
    def bits_per_weight(self) -> float:
        """Of all tensors together."""
        elements = sum(prod(tensor.shape) for tensor in self.tensors.values())
        return 8 * sum(tensor.nbytes for tensor in self.tensors.values()) / max(1, elements)

    @property
    def name(self) -> str:
        """The file's name without its ending and its number."""
        matched = _SHARD.fullmatch(self.files[0].name)
        return matched["stem"] if matched else self.files[0].stem


def place_in(place: Path) -> Path | None:
    """The GGUF that a path names: the file itself, or the one model that a folder holds; None for
    anything else. Raises PackError (usage) for a folder with several."""
    if place.is_file():
        return place if place.suffix.casefold() == ENDING else None
    if not place.is_dir() or (place / "config.json").exists():
        return None
    files = sorted(path for path in place.glob("*.gguf") if not path.name.startswith("."))
    first = [
        path
        for path in files
        if (matched := _SHARD.fullmatch(path.name)) is None or int(matched["number"]) == 1
    ]
    if len(first) > 1:
        raise usage(
            f"{place} holds {len(first)} models: {', '.join(path.name for path in first[:4])}.",
            "Name the file of one.",
        )
    return first[0] if first else None


def read_given(path: Path) -> Given:
    """All files of the model whose first file is named.

    Raises PackError: exit code 2 for a file that is not the first, 6 for a header that no engine
    should be shown, a file that is missing or belongs to another model.
    """
    matched = _SHARD.fullmatch(path.name)
    if matched and int(matched["number"]) != 1:
        first = f"{matched['stem']}-00001-of-{matched['count']}.gguf"
        raise usage(f"{path.name} is not the first file of its model.", f"Name {first}.")
    head = _read(path, path)
    count = head.number(_COUNT)
    if count is None or count == 1:
        if matched and int(matched["count"]) > 1:
            raise bad_input(f"{path} does not say that it is one of several files.", _GET_AGAIN)
        return Given((path,), (head,))
    if not matched or int(matched["count"]) != count or not 0 < count <= PACKAGE_FILES:
        raise bad_input(
            f"{path} says that it is one of {count:g} files, which its name does not.",
            "Give the files the names that llama-gguf-split gave them.",
        )
    paths = [
        path.with_name(f"{matched['stem']}-{number:05d}-of-{matched['count']}.gguf")
        for number in range(1, int(count) + 1)
    ]
    headers = (head, *(_read(other, path) for other in paths[1:]))
    _refuse_strangers(headers, int(count))
    return Given(tuple(paths), headers)


def _read(path: Path, first: Path) -> GgufFile:
    """The header of a file beside the first, links followed as far as its own folder."""
    try:
        real, home = path.resolve(strict=True), first.resolve(strict=True).parent
    except (OSError, RuntimeError):
        what = "is not there" if path == first else f"is missing, which {first.name} needs"
        raise bad_input(f"{path} {what}.", _GET_AGAIN) from None
    if real.parent != home:
        raise bad_input(
            f"{path} is a link out of its folder, to {real}.", "Put the files into one folder."
        )
    try:
        return read(real)
    except OSError as error:
        raise bad_input(f"{path} cannot be read: {error.strerror}.", "Check the file.") from None
    except PackError as error:
        raise PackError(
            error.message.replace(str(real), str(path), 1), error.hint, error.exit_code
        ) from None


def _refuse_strangers(headers: tuple[GgufFile, ...], count: int) -> None:
    seen: set[str] = set()
    for number, header in enumerate(headers):
        if header.number(_NUMBER) != number or header.number(_COUNT) != count:
            raise bad_input(
                f"{header.path} does not say that it is file {number + 1} of {count}.", _GET_AGAIN
            )
        twice = next((tensor.name for tensor in header.tensors if tensor.name in seen), None)
        if twice is not None:
            raise bad_input(f"{header.path} holds {twice!r}, as another file does.", _GET_AGAIN)
        seen |= {tensor.name for tensor in header.tensors}
    wanted = headers[0].number(_TENSORS)
    if wanted is not None and wanted != len(seen):
        raise bad_input(
            f"{headers[0].path} announces {wanted:g} tensors in {count} files, which hold "
            f"{len(seen)}.",
            _GET_AGAIN,
        )
