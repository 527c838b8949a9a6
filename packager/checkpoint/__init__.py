"""A Qwen checkpoint seen one way, whatever wrote it: shape, tensors (lazy), tokenizer, template.

Opening reads headers and descriptions, and refuses what is corrupt, unsafe or not supported. Of the
weights it reads an output matrix that a tied checkpoint stores besides, to see whether it is the
embedding.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from packager.checkpoint import composed as composition
from packager.checkpoint import first_generation
from packager.checkpoint.added_tokens import LISTED, with_added_file
from packager.checkpoint.agreement import (
    Agreed,
    ids_beyond,
    match,
    refuse_foreign_code,
    refuse_other_inputs,
    refuse_other_tasks,
    refuse_unsupported,
)
from packager.checkpoint.audio import Audio
from packager.checkpoint.audio import read as read_audio
from packager.checkpoint.composed import Composed
from packager.checkpoint.described import is_described
from packager.checkpoint.folder import (
    POOLING,
    is_license,
    missing_config,
    read_json,
)
from packager.checkpoint.header import TensorInfo
from packager.checkpoint.heads import read as read_heads
from packager.checkpoint.kinds import (
    check_config,
    check_generation_config,
    check_tokenizer_config,
)
from packager.checkpoint.quantized import KEYS, method_of
from packager.checkpoint.shards import read_tensors
from packager.checkpoint.tokenizer import chat_template, check_tokenizer
from packager.checkpoint.vision import Vision
from packager.checkpoint.vision import read as read_vision
from packager.json_values import JsonDict, JsonObject, object_at
from packager.shape import Shape
from packager.shape.keys import check_keys
from packager.shape.names import config_path
from packager.shape.positions import Positions, positions_of
from packager.shape.tensors import naming_of
from packager.shape.tower import describes_tower
from packager.shape.windows import Windows, windows_of

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["Checkpoint", "TensorInfo"]

_DTYPES = (None, "float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Checkpoint:
    """The text decoder of a checkpoint in a folder, of any generation.

    `files` are all that belong to it, by name. `config` is config.json as the weights bear it out:
    without a tie that they do not have, a quantization that is not theirs, and ids that no row has.
    `tokenizer_config` lists what added_tokens.json adds where it lists nothing itself. `tensors`
    are in stored order, by official name, and exactly those that follow from `shape`; `dropped`
    names those that the files store besides: redundant ones, the draft module, which `heads` reads,
    the vision tower, which `vision` reads, the audio encoder, which `audio` reads.
    `as_published` says that the files themselves have those names, that configuration and types of
    32 bits at most, so that an engine may read them. `chat_template` is None for a base model.
    Of a folder that describes an adopted model there are no tensors.
    `notes` are sentences for whoever builds; `quantized` says how the files hold the weights where
    those are dequantized as they are read.
    """

    folder: Path
    files: Mapping[str, Path]
    config: JsonObject
    shape: Shape
    tensors: Mapping[str, TensorInfo]
    dropped: tuple[str, ...]
    tokenizer_config: JsonObject
    generation_config: JsonObject
    chat_template: str | None
    positions: Positions
    windows: Windows
    as_published: bool
    notes: tuple[str, ...] = ()
    quantized: str | None = None
    _tower: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False)
    _heads: Mapping[str, TensorInfo] = field(default_factory=dict, repr=False)
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict, repr=False, compare=False)
    _computed: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read and check a folder.

        Raises PackError: exit code 2 when there is no such folder, 6 naming the file when something
        in it is corrupt, unsafe, missing or not supported.
        """
        composed = composition.read(folder)
        files = composition.files_of(folder, composed)
        if "config.json" not in files:
            raise missing_config(folder)
        config = read_json(files["config.json"])
        tokenizer_config = (
            read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
        )
        first = first_generation.text_only(config)
        refuse_foreign_code(files["config.json"], config, first=first)
        if tokenizer_config:
            refuse_foreign_code(files["tokenizer_config.json"], tokenizer_config, first=first)
        where = str(files["config.json"])
        refuse_unsupported(where, config.get("model_type"))
        check_config(files["config.json"], config)
        refuse_other_inputs(where, config)
        refuse_other_tasks(where, config)
        generation_config = (
            read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
        )
        if tokenizer_config:
            check_tokenizer_config(files["tokenizer_config.json"], tokenizer_config)
        if generation_config:
            check_generation_config(files["generation_config.json"], generation_config)
        shape = Shape.from_config(config, where)
        check_keys(config, shape, where)
        decoder = config
        for key in config_path(config, naming_of(shape)):
            decoder = object_at(decoder, key)
        positions, windows = positions_of(decoder, shape, where), windows_of(decoder, shape, where)
        weights = folder if composed is None else composed.base
        if is_described(folder):
            agreed = Agreed(shape, {}, (), renamed=False, untied=False, headless=False, notes=())
        else:
            stored = read_tensors(weights, files)
            agreed = match(files["config.json"], config, shape, stored, POOLING in files)
        if composed is not None:
            agreed = _adapted(agreed, composed)
        tokenizer_config = _all_added(files, tokenizer_config)
        tokenizer_notes = check_tokenizer(folder, files, agreed.shape.vocab, tokenizer_config)
        return cls(
            folder=folder,
            files=MappingProxyType(files),
            config=_borne_out(config, agreed),
            shape=agreed.shape,
            tensors=MappingProxyType(agreed.tensors),
            dropped=agreed.dropped,
            tokenizer_config=tokenizer_config,
            generation_config=generation_config,
            chat_template=chat_template(files, tokenizer_config)
            or (first_generation.chat_template(generation_config) if first else None),
            positions=positions,
            windows=windows,
            as_published=_as_published(config, agreed),
            notes=(*agreed.notes, *tokenizer_notes, *_notes_on_ids(config, agreed)),
            quantized=agreed.quantized,
            _tower=MappingProxyType(dict(agreed.tower)),
            _heads=MappingProxyType(dict(agreed.heads)),
        )

    @property
    def decoder_config(self) -> Mapping[str, Any]:
        """The text decoder's own table of `config`."""
        table: Mapping[str, Any] = self.config
        for key in config_path(self.config, naming_of(self.shape)):
            table = table[key]
        return table

    def vision(self) -> Vision:
        """The vision tower, checked as the decoder was. Raises PackError (exit code 6) with the
        reason where there is none, or not a whole one."""
        return read_vision(self.files, self.config, self.shape, self._tower)

    def audio(self) -> Audio:
        """The audio encoder, checked as the decoder was. Raises PackError (exit code 6) with the
        reason where there is none, or not a whole one."""
        return read_audio(self.files, self.config, self.shape, self._tower)

    def heads(self) -> dict[str, TensorInfo]:
        """The draft module for multi-token prediction by official name, checked as the decoder was.
        Raises PackError (exit code 6) with the reason where there is none, or not a whole one."""
        return read_heads(self.files["config.json"], self.shape, self._heads)

    @property
    def has_heads(self) -> bool:
        """Whether anything of a draft module is stored."""
        return bool(self._heads)

    @property
    def takes_pictures(self) -> bool:
        """Whether config.json speaks of a vision tower."""
        return describes_tower(self.config)

    @property
    def stored_dtype(self) -> str:
        """The type that most of the weights are stored in, as safetensors calls it."""
        weight: dict[str, int] = {}
        for tensor in self.tensors.values():
            if len(tensor.shape) > 1:
                weight[tensor.dtype] = weight.get(tensor.dtype, 0) + tensor.nbytes
        return max(weight, key=lambda dtype: weight[dtype], default="BF16")

    @property
    def ignores_python(self) -> bool:
        """Whether its files point at Python of their own, which is left alone, unread."""
        return bool(self.config.get("auto_map") or self.tokenizer_config.get("auto_map"))

    @property
    def tiktoken(self) -> Path | None:
        """qwen.tiktoken of the first generation."""
        return self.files.get("qwen.tiktoken")

    @property
    def tokenizer_json(self) -> Path | None:
        """tokenizer.json; None where only `vocab_json` and `merges_txt`, or `tiktoken`, are
        there."""
        return self.files.get("tokenizer.json")

    @property
    def vocab_json(self) -> Path | None:
        """vocab.json of a byte-level BPE, without the added tokens."""
        return self.files.get("vocab.json")

    @property
    def merges_txt(self) -> Path | None:
        """merges.txt of a byte-level BPE, best merge first."""
        return self.files.get("merges.txt")

    @property
    def licenses(self) -> tuple[Path, ...]:
        """Licence and notice files."""
        return tuple(path for name, path in self.files.items() if is_license(name))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors as stored, redundant ones left out."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def raw(self, name: str) -> memoryview:
        """The bytes of a tensor, read from the disk as they are touched, or computed. Raises
        KeyError for an unknown name."""
        tensor = self.tensors[name]
        if tensor.made is not None:
            return self.array(name).reshape(-1).view("u1").data
        return memoryview(self._map(tensor.file))[tensor.offset : tensor.offset + tensor.nbytes]

    def array(self, name: str) -> numpy.ndarray[Any, Any]:
        """A tensor as a read-only numpy array over the same bytes: bfloat16 (of ml_dtypes),
        float16, float32 or float64."""
        # numpy and ml_dtypes take a tenth of a second to import; whoever only looks at shapes does
        # not pay for it.
        import numpy

        from packager.checkpoint.numbers import compute, dtype_of

        tensor = self.tensors[name]
        if tensor.made is not None:
            made = self._computed.get(name)
            if made is None:
                made = self._computed[name] = compute(tensor)
                made.flags.writeable = False
            return made
        return numpy.frombuffer(self.raw(name), dtype=dtype_of(tensor.dtype)).reshape(tensor.shape)

    def release(self, name: str) -> None:
        """Let the system take back the memory of a tensor that has been read; its bytes can be read
        again."""
        tensor = self.tensors[name]
        if tensor.made is not None:
            self._computed.pop(name, None)
            return
        start = tensor.offset - tensor.offset % mmap.PAGESIZE
        if tensor.nbytes and hasattr(mmap, "MADV_DONTNEED"):
            self._map(tensor.file).madvise(
                mmap.MADV_DONTNEED, start, tensor.offset + tensor.nbytes - start
            )

    def _map(self, file: Path) -> mmap.mmap:
        mapped = self._maps.get(file)
        if mapped is None:
            with file.open("rb") as stream:
                # Two threads may both map the file: the first one counts, the other goes with its
                # last reader.
                mapped = self._maps.setdefault(
                    file, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                )
        return mapped


def _all_added(files: Mapping[str, Path], tokenizer_config: JsonObject) -> JsonObject:
    """tokenizer_config.json with what added_tokens.json adds to it."""
    if "added_tokens.json" not in files or LISTED in tokenizer_config:
        return tokenizer_config
    definition = read_json(files["tokenizer.json"]) if "tokenizer.json" in files else {}
    path = files["added_tokens.json"]
    return with_added_file(tokenizer_config, path, read_json(path), definition)


def _adapted(agreed: Agreed, composed: Composed) -> Agreed:
    """The base with its adapters, one after the other."""
    # Late: numpy, which only adapters need here.
    from packager.checkpoint.adapter import Adapter
    from packager.checkpoint.merge import merge

    shape, tensors = agreed.shape, agreed.tensors
    for folder, scale in composed.adapters:
        shape, tensors = merge(shape, tensors, Adapter.open(folder, scale))
    untied = agreed.untied or (agreed.shape.tied and not shape.tied)
    return replace(agreed, shape=shape, tensors=tensors, untied=untied)


def _borne_out(config: JsonObject, agreed: Agreed) -> JsonObject:
    """config.json without what the weights contradict."""
    kept = {key: value for key, value in config.items() if key not in KEYS}
    tables: list[JsonDict] = [kept]
    for key in config_path(config, naming_of(agreed.shape)):
        inner = dict(object_at(tables[-1], key))
        tables[-1][key] = inner
        tables.append(inner)
    for table in tables:
        if agreed.untied or agreed.headless:
            table["tie_word_embeddings"] = agreed.headless
        if "vocab_size" in table:
            table["vocab_size"] = agreed.shape.vocab
        for key in ids_beyond(table, agreed.shape.vocab):
            del table[key]
        for key in _foreign_dtypes(table):
            del table[key]
    return kept


def _foreign_dtypes(table: JsonObject) -> tuple[str, ...]:
    """The keys of a configuration whose type torch does not know, such as "auto": transformers
    looks them up by name and fails."""
    return tuple(
        key for key in ("torch_dtype", "dtype") if key in table if table[key] not in _DTYPES
    )


def _tables(config: JsonObject, agreed: Agreed) -> list[JsonObject]:
    """config.json, and the tables in it down to the text decoder's own."""
    tables = [config]
    for key in config_path(config, naming_of(agreed.shape)):
        tables.append(object_at(tables[-1], key))
    return tables


def _notes_on_ids(config: JsonObject, agreed: Agreed) -> tuple[str, ...]:
    rows = agreed.shape.vocab
    beyond = [table[key] for table in _tables(config, agreed) for key in ids_beyond(table, rows)]
    return tuple(
        f"config.json names the token {number} for the beginning or for padding, but the "
        f"vocabulary has {rows}: that is left out."
        for number in dict.fromkeys(beyond)
    )


def _as_published(config: JsonObject, agreed: Agreed) -> bool:
    changed = agreed.renamed or agreed.untied or agreed.headless or method_of(config) is not None
    # torch makes no embedding whose padding has no row.
    changed = changed or bool(_notes_on_ids(config, agreed))
    changed = changed or any(map(_foreign_dtypes, _tables(config, agreed)))
    plain = (tensor.dtype != "F64" and tensor.made is None for tensor in agreed.tensors.values())
    return not changed and all(plain)
