"""A LoRA adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors, read and
checked before it is brought to a base.

Source: huggingface/peft, docs/source/developer_guides/checkpoint.md and tuners/lora (config.py,
layer.py, dora.py). Nothing of it is run, and a pickle is not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packager.checkpoint.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    checkpoint_files,
    read_json,
    safe_files,
)
from packager.checkpoint.header import ITEM_BYTES, TensorInfo, read_header
from packager.checkpoint.kinds import is_number
from packager.checkpoint.patterns import compiled, most_steps, refuse_pattern
from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject, object_or_empty
from packager.limits import PATTERN_STEPS, PATTERNS

CONFIG, WEIGHTS = ADAPTER_CONFIG, ADAPTER_WEIGHTS
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_PICKLE = "adapter_model.bin"

_MOST_RANK = 1 << 14
_PATTERNS = ("rank_pattern", "alpha_pattern")
_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(\.(?!weight$|bias$)\w+)?(\.(?P<kind>weight|bias))?"
)
_SAVED = re.compile(r"\.(base_layer|modules_to_save(\.(?!weight$|bias$)\w+)?)(?=\.(weight|bias)$)")

_TRAINED = ".modules_to_save."

_OTHER_ARITHMETIC = (
    "layer_replication",
    "alora_invocation_tokens",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Keys by which the adapter is more than W + s * BA."""
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of init_lora_weights by which training began from a changed base."""

_GET_AGAIN = "Get the file again from where the adapter came from."


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one matrix: `scaling` * up @ down, `up` (rows, rank) and `down`
    (rank, columns).

    Of an embedding they are stored the other way round: `up` is (rank, rows), `down` (columns,
    rank). `magnitude` (rows) is DoRA's; `bias` (rows) is added to the layer's bias, scaled alike.
    """

    module: str
    down: TensorInfo
    up: TensorInfo
    scaling: float
    embedding: bool = False
    magnitude: TensorInfo | None = None
    bias: TensorInfo | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that it belongs to."""
        return (
            (self.up.shape[1], self.down.shape[0])
            if self.embedding
            else (self.up.shape[0], self.down.shape[1])
        )


@dataclass(frozen=True)
class Adapter:
    """One adapter: `low_rank` by the module's name in the base, `replaced` are tensors that it
    stores whole, by name.

    `base` and `revision` are what it says of the model that it was trained on; `tied` says that
    what it does to the embedding is meant for the output matrix as well.
    """

    folder: Path
    scale: float
    files: Mapping[str, Path]
    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, TensorInfo]
    base: str | None
    revision: str | None
    tied: bool

    @classmethod
    def open(cls, folder: Path, scale: float = 1.0) -> Adapter:
        """Read and check the folder of an adapter.

        Raises PackError: exit code 2 where there is no such folder, or a scale that has no meaning
        for it; 6 naming the file and what in it is corrupt, unsafe or not supported.
        """
        files = {**safe_files(folder, (CONFIG, WEIGHTS)), **_texts(folder)}
        if CONFIG not in files:
            raise bad_input(
                f"{folder} has no {CONFIG}.", "Name the folder that PEFT saved the adapter into."
            )
        if WEIGHTS not in files:
            pickled = " but a pickle, which can run any code when it is loaded"
            raise bad_input(
                f"{folder} has no {WEIGHTS}{pickled if (folder / _PICKLE).exists() else ''}.",
                "Save the adapter as safetensors: model.save_pretrained(FOLDER).",
            )
        config = _config(files[CONFIG])
        low_rank, replaced = _sorted(files[WEIGHTS], config)
        if not low_rank and not replaced:
            raise bad_input(f"{files[WEIGHTS]} holds no adapter.", _GET_AGAIN)
        if scale != 1 and replaced:
            raise usage(
                f"{folder} stores {next(iter(replaced))!r} whole, which has no scale.",
                "Name it without one.",
            )
        scaled = {
            name: replace(part, scaling=part.scaling * scale) for name, part in low_rank.items()
        }
        return cls(
            folder,
            scale,
            MappingProxyType(files),
            scaled,
            replaced,
            _text(config, "base_model_name_or_path"),
            _text(config, "revision"),
            config.get("ensure_weight_tying") is True,
        )


def adapter_file(name: str) -> bool:
    """Whether a file of that path in a repository is one of an adapter's."""
    return name in (CONFIG, WEIGHTS) or _is_text(name)


def _is_text(name: str) -> bool:
    return name in TOKENIZER_FILES or name in TEMPLATE_FILES


def _texts(folder: Path) -> dict[str, Path]:
    """Tokenizer and template that were saved beside the adapter."""
    return {name: path for name, path in checkpoint_files(folder).items() if _is_text(name)}


def _config(path: Path) -> JsonObject:
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise bad_input(
            f"{path} describes an adapter of the type {config.get('peft_type')!r}, which is not "
            "supported.",
            "Only LoRA can be merged here; merge it with PEFT and name the merged folder with "
            "--weights.",
        )
    for key in _OTHER_ARITHMETIC:
        if config.get(key):
            raise bad_input(
                f"{path} uses {key}, which is not supported.",
                "Merge the adapter with PEFT and name the merged folder with --weights.",
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASE):
        raise bad_input(
            f"{path} says that training began from a changed base (init_lora_weights {start!r}).",
            "Save it with path_initial_model_for_weight_conversion, so that it fits the published "
            "base.",
        )
    _patterns(path, config)
    return config


def _patterns(path: Path, config: JsonObject) -> None:
    """Refuse patterns that are no regular expression, or one that could run for ever."""
    for key in _PATTERNS:
        table = config.get(key) or {}
        if not isinstance(table, dict) or not all(map(is_number, table.values())):
            raise bad_input(f"{path}: {key} is not a map from names to numbers.", _GET_AGAIN)
        if len(table) > PATTERNS:
            raise bad_input(f"{path}: {key} has more than {PATTERNS} patterns.", _GET_AGAIN)
        for pattern in table:
            refuse_pattern(f"{path}: {key}", pattern)


def _bounded(path: Path, config: JsonObject, modules: Mapping[str, Any]) -> None:
    """Refuse patterns and modules that together take too long."""
    longest = max(map(len, modules), default=0)
    each = sum(
        most_steps(pattern, longest)
        for key in _PATTERNS
        for pattern in object_or_empty(config, key)
    )
    if each * len(modules) > PATTERN_STEPS:
        raise bad_input(
            f"{path} has patterns that would take too long over {len(modules)} modules.",
            "Write the modules' names out.",
        )


def _sorted(path: Path, config: JsonObject) -> tuple[dict[str, LowRank], dict[str, TensorInfo]]:
    """Every tensor of the file in its place."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    replaced: dict[str, TensorInfo] = {}
    trained: dict[str, TensorInfo] = {}
    for tensor in read_header(path):
        if tensor.dtype not in ITEM_BYTES:
            raise bad_input(
                f"Tensor {tensor.name!r} in {path} is stored as {tensor.dtype}.",
                "Save the adapter in 16 or 32 bits.",
            )
        name = tensor.name.removeprefix(_PREFIX)
        matched = _PART.fullmatch(name)
        if matched is not None:
            part = matched["part"] + ("_bias" if matched["kind"] == "bias" else "")
            _once(path, parts.setdefault(matched["module"], {}), part, tensor)
        elif _TRAINED in name:
            _once(path, trained, _SAVED.sub("", name), tensor)
        elif ".original_module." not in name:
            _once(path, replaced, _SAVED.sub("", name), tensor)
    _bounded(path, config, parts)
    low_rank = {module: _low_rank(path, config, module, rows) for module, rows in parts.items()}
    # A vocabulary that has grown is saved as it was before training besides.
    return low_rank, replaced | trained


def _once(path: Path, table: dict[str, TensorInfo], name: str, tensor: TensorInfo) -> None:
    if name in table:
        raise bad_input(
            f"{path} holds {table[name].name!r} and {tensor.name!r}, which are the same tensor.",
            "Save one adapter a folder.",
        )
    table[name] = tensor


def _low_rank(path: Path, config: JsonObject, module: str, found: dict[str, TensorInfo]) -> LowRank:
    embedding = "lora_embedding_A" in found
    first, second = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    known = {first, second, "lora_magnitude_vector", "lora_B_bias"}
    if first not in found or second not in found or found.keys() - known:
        raise bad_input(
            f"{path}: {module!r} has {', '.join(sorted(found))} instead of {first} and {second}.",
            _GET_AGAIN,
        )
    a, b = found[first], found[second]
    rank = a.shape[0] if a.shape else 0
    if len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != rank or not rank:
        raise bad_input(
            f"{path}: {a.name!r} has the shape {list(a.shape)} and {b.name!r} {list(b.shape)}, "
            "which cannot be multiplied.",
            "It may have been saved before its shards were gathered: save it again.",
        )
    rows = a.shape[1] if embedding else b.shape[0]
    magnitude, bias = found.get("lora_magnitude_vector"), found.get("lora_B_bias")
    if bool(config.get("use_dora")) is not (magnitude is not None) or (embedding and magnitude):
        raise bad_input(
            f"{path}: use_dora and the magnitudes of {module!r} do not agree.",
            "DoRA is merged for linear layers, each with its magnitude vector.",
        )
    for vector in (magnitude, bias):
        if vector is not None and math.prod(vector.shape) != rows:
            raise bad_input(
                f"{path}: {vector.name!r} has the shape {list(vector.shape)} for {rows} rows.",
                _GET_AGAIN,
            )
    scaling = _scaling(path, config, module, rank)
    if embedding:
        return LowRank(module, b, a, scaling, embedding=True)
    return LowRank(module, a, b, scaling, False, magnitude, bias)


def _scaling(path: Path, config: JsonObject, module: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) of rsLoRA, by what stands for this module."""
    named = _of_module(config, "rank_pattern", module, config.get("r"))
    alpha = _of_module(config, "alpha_pattern", module, config.get("lora_alpha"))
    if not is_number(alpha) or not isinstance(named, int) or not 0 < named <= _MOST_RANK:
        raise bad_input(f"{path}: r {named!r} and lora_alpha {alpha!r} give no scale.", _GET_AGAIN)
    if named != rank:
        raise bad_input(
            f"{path} says rank {named} for {module!r}, whose matrices have the rank {rank}.",
            "Take both files from one and the same revision.",
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_module(config: JsonObject, key: str, module: str, otherwise: Any) -> Any:
    for pattern, value in object_or_empty(config, key).items():
        if compiled(pattern).match(module):
            return value
    return otherwise


def _text(config: JsonObject, key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) and value else None


def refused(adapter: Adapter, problems: list[str], named: int = 3) -> PackError:
    """Why an adapter does not belong to a base: the first differences, and how many more."""
    more = f", and {len(problems) - named} more" if len(problems) > named else ""
    base = f" It says that it was trained on {adapter.base!r}." if adapter.base else ""
    return bad_input(
        f"The adapter in {adapter.folder} does not belong to this base: "
        f"{'; '.join(problems[:named])}{more}.{base}",
        "Name the model that it was trained on with --model or --weights.",
    )
