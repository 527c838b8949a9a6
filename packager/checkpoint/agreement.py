"""What a config.json may say, and whether the tensors are the ones that it describes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packager.checkpoint import first_generation
from packager.checkpoint.header import ITEM_BYTES, TensorInfo
from packager.checkpoint.naming import (
    OUTPUT,
    Named,
    draft_name,
    is_computed,
    is_speech,
    named,
    sound_name,
    tower_name,
)
from packager.checkpoint.quantized import METHODS, dequantized, method_of, note
from packager.errors import bad_input
from packager.json_values import JsonObject, list_at, object_at
from packager.shape import FIRST_GENERATION, Shape
from packager.shape.names import TEXT_TYPES, config_path
from packager.shape.speaking import HEARD_WRONGLY, HEARS_WELL, SPEECH
from packager.shape.tensors import naming_of, outer_tensors

_NAMED = 3
_COMPARED = 1 << 21
"""Elements of two matrices that are compared at once."""
_SMALLEST_SHARE_OF_16_BITS = 0.75
_OTHER_TASK = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|RewardModel|ProcessReward\w*)$"
)
_SCALES: tuple[str, ...] = (
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".scales",
    ".SCB",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_scale_2",
)
_SCALES += (
    ".weight.absmax",
    ".weight.quant_map",
    ".weight_packed",
    ".weight_shape",
    ".input_scale",
    ".weight_zero_point",
)
_BY_VOCABULARY = ("embed_tokens.weight", "lm_head.weight", "wte.weight")


def refuse_unsupported(where: str, model_type: Any) -> None:
    """Refuse what is no Qwen whose text decoder can be opened."""
    if model_type not in TEXT_TYPES:
        raise bad_input(
            f"{where}: checkpoints of model_type {model_type!r} are not supported.",
            f"Supported: {', '.join(TEXT_TYPES)}.",
        )


def refuse_other_inputs(where: str, config: JsonObject) -> None:
    """Refuse Qwen-VL and Qwen-Audio, which share their model_type with the first generation's text
    models."""
    if config.get("model_type") == FIRST_GENERATION and not first_generation.text_only(config):
        raise bad_input(
            f"{where} describes an image or audio encoder of the first generation, which is not "
            "supported.",
            "Name a text checkpoint, such as Qwen-1_8B-Chat.",
        )


def refuse_foreign_code(path: Path, config: JsonObject, *, first: bool = False) -> None:
    """Refuse a config that points at Python of its own: it would have to be run.

    The `first` generation's own is known without it, and is left alone.
    """
    if config.get("auto_map") and not (first and first_generation.own_python(config["auto_map"])):
        raise bad_input(
            f"{path} needs its own Python code (auto_map), which is never run here.",
            "Name a checkpoint that the engines know by its model_type, such as Qwen2.5 or Qwen3.",
        )


def refuse_other_tasks(where: str, config: JsonObject) -> None:
    """Refuse a decoder that was given another end than one for text: a classifier, a reranker, a
    reward model. `config` is one whose settings are of their kinds."""
    for name in list_at(config, "architectures"):
        if isinstance(name, str) and _OTHER_TASK.search(name):
            raise bad_input(
                f"{where}: architectures names {name}, a classifier and not a text generator.",
                "Name the checkpoint of a text generator; a reranker can be had as one, too "
                "(Qwen3-Reranker's own form).",
            )


def refuse_quantized(
    path: Path,
    config: JsonObject,
    stored: Mapping[str, TensorInfo],
    needed: Mapping[str, TensorInfo],
) -> None:
    """Refuse weights that are quantized already (GPTQ, AWQ, FP8): quantizing twice loses twice.

    The tensors decide: merging an adapter leaves a quantization_config beside weights of 16 bits,
    which are taken.
    """
    method = method_of(config)
    says = f"; config.json says so, too ({method})" if method else ""
    way_on = "Name the unquantized repository or folder that it was made from."
    for name, tensor in stored.items():
        if name.endswith(_SCALES):
            raise bad_input(
                f"{path.parent} is already quantized: {name!r} in {tensor.file.name} scales "
                f"quantized weights{says}.",
                way_on,
            )
    for tensor in needed.values():
        if tensor.dtype not in ITEM_BYTES:
            stored_as = f"tensor {tensor.name!r} in {tensor.file.name} is stored as {tensor.dtype}"
            raise bad_input(f"{path.parent} is already quantized: {stored_as}{says}.", way_on)


def quantized_by_size(path: Path, config: JsonObject, weight_bytes: int) -> None:
    """Refuse a repository before its weights are fetched: its config.json says that they are
    quantized, and they are too few bytes.

    Raises PackError (exit code 6).
    """
    method = method_of(config)
    if (
        method
        and method not in METHODS
        and weight_bytes
        < _SMALLEST_SHARE_OF_16_BITS * 2 * Shape.from_config(config, str(path)).parameters()
    ):
        raise bad_input(
            f"{path} says that the checkpoint is already quantized ({method}).",
            "Name the unquantized repository or folder that it was made from.",
        )


@dataclass(frozen=True, slots=True)
class Agreed:
    """The decoder that config.json and tensors describe together.

    `tensors` by official name in stored order; `dropped` are stored names that are left out;
    `untied` says that the output matrix is not the embedding although config.json ties them,
    `headless` that there is no output matrix although config.json unties them; `quantized`
    how the files hold the weights, where these are computed from it; `notes` are sentences for
    whoever builds; `tower` is what is stored of a vision tower or an audio encoder, `heads` of a
    draft module, both by the files' names.
    """

    shape: Shape
    tensors: dict[str, TensorInfo]
    dropped: tuple[str, ...]
    renamed: bool
    untied: bool
    headless: bool
    notes: tuple[str, ...]
    quantized: str | None = None
    tower: Mapping[str, TensorInfo] = field(default_factory=dict)
    heads: Mapping[str, TensorInfo] = field(default_factory=dict)


def match(
    path: Path,
    config: JsonObject,
    shape: Shape,
    stored: Mapping[str, TensorInfo],
    embedder: bool = False,
) -> Agreed:
    """Bring the tensors and config.json (at `path`) together.

    An `embedder` may lack the output matrix that config.json promises: it has none then, as if it
    were tied. So may a decoder whose own table ties it, whatever the table around that says.

    A tied checkpoint may store its output matrix again (Qwen1.5-0.5B, Qwen3-0.6B and Qwen3-1.7B
    do): equal to the embedding it is dropped, different from it (a trained output matrix) it
    counts, and nothing is tied. Raises PackError (exit code 6) that names the first tensors which
    are missing, additional or of another shape, and for weights that are quantized already.
    """
    plain = dequantized(path, config, stored)
    stored = plain.tensors
    without = not shape.tied and not any(name.endswith(OUTPUT) for name in stored)
    headless = without and (embedder or _ties_within(config, shape))
    if headless:
        shape = replace(shape, tied=True)
    matched = named(str(path), shape, stored)
    refuse_quantized(path, config, stored, matched.kept)
    kept, beside = matched.kept, list(matched.beside)
    embedding, output = next(outer_tensors(shape)).name, naming_of(shape).head + OUTPUT
    untied = False
    if shape.tied and output in kept and embedding not in kept:
        # One matrix under the other name, as transformers takes it.
        kept = {embedding if name == output else name: tensor for name, tensor in kept.items()}
    elif shape.tied and output in kept and kept[output].shape == matched.expected[embedding]:
        untied = not same_values(kept[output], kept[embedding])
        if not untied:
            beside.append(kept.pop(output).name)
    expected = dict(matched.expected) | ({output: matched.expected[embedding]} if untied else {})
    _refuse_disagreement(path, expected, kept, matched, stored)
    return Agreed(
        replace(shape, tied=False) if untied else shape,
        kept,
        tuple(name for name in stored if name in beside),
        renamed=any(name != tensor.name for name, tensor in kept.items()),
        untied=untied,
        headless=headless,
        notes=(
            *_notes(config, kept, matched, untied, plain.how),
            *_notes_on_speaking(shape, matched.beside),
        ),
        quantized=plain.how,
        tower={name: stored[name] for name in beside if tower_name(name) or sound_name(name)},
        heads={name: stored[name] for name in beside if draft_name(name)},
    )


def _ties_within(config: JsonObject, shape: Shape) -> bool:
    for key in config_path(config, naming_of(shape)):
        config = object_at(config, key)
    return config.get("tie_word_embeddings") is True


def _refuse_disagreement(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    kept: Mapping[str, TensorInfo],
    found: Named,
    stored: Mapping[str, TensorInfo],
) -> None:
    problems = []
    for name, size in expected.items():
        if name not in kept:
            problems.append(f"tensor {name!r} is missing")
        elif kept[name].shape != size:
            tensor = kept[name]
            problems.append(
                f"tensor {tensor.name!r} in {tensor.file.name} has the shape {list(tensor.shape)} "
                f"instead of {list(size)}"
            )
    strange = [
        *found.strange,
        *(tensor.name for name, tensor in kept.items() if name not in expected),
    ]
    problems += [
        f"tensor {name!r} in {stored[name].file.name} is not part of the model" for name in strange
    ]
    if not problems:
        return
    more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    rows = [
        name
        for name in expected
        if name.endswith(_BY_VOCABULARY)
        and name in kept
        and kept[name].shape[1:] == expected[name][1:]
    ]
    grown = next((name for name in rows if kept[name].shape != expected[name]), None)
    way_on = "Take config.json and the safetensors files from one and the same revision."
    if any(0 in tensor.shape for tensor in kept.values()):
        way_on = (
            "ZeRO-3 leaves empty tensors when it saves without gathering: gather with its own "
            "zero_to_fp32.py, and save that."
        )
    elif problems == [f"tensor {OUTPUT!r} is missing"]:
        way_on = (
            "Set tie_word_embeddings to true in config.json if the embedding is the output matrix, "
            "as in the small Qwen models; else get the file that holds it."
        )
    elif grown is not None:
        way_on = (
            f"Set vocab_size to {kept[grown].shape[0]}, the rows that the weights have, if tokens "
            "were added."
        )
    raise bad_input(
        f"The weights are not the ones that {path} describes: "
        f"{'; '.join(problems[:_NAMED])}{more}.",
        way_on,
    )


def _notes(
    config: JsonObject,
    kept: Mapping[str, TensorInfo],
    found: Named,
    untied: bool,
    quantized: str | None,
) -> Iterator[str]:
    if untied:
        yield (
            "The output matrix differs from the embedding although config.json ties them: both "
            "are kept, as transformers does."
        )
    if quantized is not None:
        yield note(quantized)
    elif (method := method_of(config)) is not None:
        yield (
            f"config.json says that the weights are quantized ({method}), but they have 16 bits "
            "or more: the key is left aside."
        )
    if any(tensor.dtype == "F64" for tensor in kept.values()):
        yield "Tensors in 64 bits are taken as float32."
    heads = [name for name in found.beside if not is_computed(name)]
    if heads:
        more = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
        yield f"{heads[0]!r}{more} belong to no text decoder and are left out."


def _notes_on_speaking(shape: Shape, beside: tuple[str, ...]) -> Iterator[str]:
    """What of a model that also speaks is not built, with the reason."""
    if speech := sum(map(is_speech, beside)):
        parts = " and ".join(SPEECH)
        yield f"{speech} tensors of {parts}, which speak, are left out: what comes out is text."
    reason = HEARD_WRONGLY.get(shape.model_type)
    if reason is not None and any(map(sound_name, beside)):
        yield f"The audio encoder is left out: {reason}. Take {HEARS_WELL} for sound."


def ids_beyond(table: JsonObject, rows: int) -> list[str]:
    """The keys of a config.json's table that name a token to begin or to pad with which no row of
    the vocabulary has; a vocabulary that was cut leaves them behind."""
    return [
        key
        for key in ("bos_token_id", "pad_token_id")
        if isinstance(number := table.get(key), int) and not 0 <= number < rows
    ]


def same_values(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors of one shape hold the same numbers; read in pieces, and no further than
    the first difference."""
    if one.made is not None or other.made is not None:
        return _same_rows(one, other)
    sizes = [ITEM_BYTES[tensor.dtype] for tensor in (one, other)]
    elements = one.nbytes // sizes[0]
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.offset)
        second.seek(other.offset)
        for start in range(0, elements, _COMPARED):
            count = min(_COMPARED, elements - start)
            left, right = first.read(count * sizes[0]), second.read(count * sizes[1])
            if one.dtype == other.dtype:
                if left != right:
                    return False
            elif not _equal_numbers(left, one.dtype, right, other.dtype):
                return False
    return True


def _same_rows(one: TensorInfo, other: TensorInfo) -> bool:
    # Late, as below.
    from packager.checkpoint.numbers import same_rows

    return same_rows(one, other)


def _equal_numbers(left: bytes, left_type: str, right: bytes, right_type: str) -> bool:
    # Late: numpy and ml_dtypes, which whoever looks at shapes alone does not pay for.
    from packager.checkpoint.numbers import as_float32, dtype_of

    return bool(
        (as_float32(left, dtype_of(left_type)) == as_float32(right, dtype_of(right_type))).all()
    )
