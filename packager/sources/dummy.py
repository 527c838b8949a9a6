"""The dummy source: a checkpoint in the exact shape of a variant with random weights and a
tokenizer of our own making.

Speed, size and memory of what is built from it are real; what it answers is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint, tiktoken
from packager.checkpoint.agreement import refuse_unsupported
from packager.checkpoint.byte_level_bpe import tiktoken_ranks, tokenizer_config, tokenizer_json
from packager.checkpoint.control_tokens import ControlToken, base_vocab, control_tokens
from packager.checkpoint.folder import PREPROCESSORS
from packager.checkpoint.header import ITEM_BYTES
from packager.errors import no_room
from packager.files import folder_that_appears_whole, free_bytes, write_atomically, write_json
from packager.json_values import JsonObject
from packager.runtime import Report
from packager.shape import FIRST_GENERATION, Shape, TensorSpec, Tower, heads, tensors
from packager.shape.audio import FRAME, HOP, MELS, RATE, AudioTower
from packager.shape.tensors import naming_of
from packager.shape.tower import FRAMES, MERGE
from packager.sources.facts import source_facts
from packager.units import human_bytes

SEED = 0

WRITER_VERSION = 1
"""Raised whenever the same shape and seed give other bytes."""

LICENSE = "CC0-1.0"

_TEXT_BYTES = 16_000_000
"""Room for everything beside the weights: a tokenizer.json of 151,643 tokens takes 7 MB, of 248,044
tokens 12 MB."""

_NOTE = """The weights in this folder are random numbers, and the tokenizer is synthetic. Both were made by qwen-pack.
They have the shape of {repo_id} and hold nothing of it: whatever they answer is noise.
They are dedicated to the public domain under CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/).
"""


def fetch(
    report: Report, *, repo_id: str, shape: JsonObject, out: str, seed: int = SEED
) -> JsonObject:
    """A job: write the dummy checkpoint of a variant into the folder `out`, which appears whole or
    not at all.

    `shape` are the fields of a Shape. Raises PackError: exit code 6 for a shape whose tensors are
    not known, 7 when the disk has not enough room.
    """
    true_shape = Shape.from_dict(shape)
    refuse_unsupported(repo_id, true_shape.model_type)
    total = bytes_needed(true_shape)
    folder = Path(out)
    free = free_bytes(folder)
    if free < total:
        raise no_room(
            f"The dummy checkpoint of {repo_id} needs {human_bytes(total)} below {folder.parent} "
            f"and {human_bytes(free)} are free.",
            "Free some space, choose another place with QWEN_PACK_CACHE, or a smaller variant.",
        )
    control = control_tokens(repo_id, true_shape.model_type)
    with folder_that_appears_whole(folder) as temporary:
        write_checkpoint(
            report, temporary, repo_id=repo_id, shape=true_shape, control=control, seed=seed
        )
    return source_facts(
        report,
        Checkpoint.open(folder),
        kind="dummy",
        repo_id=repo_id,
        revision=None,
        license=LICENSE,
    )


def bytes_needed(shape: Shape) -> int:
    """Disk that a dummy checkpoint of that shape takes."""
    return weights(shape) * ITEM_BYTES["BF16"] + _TEXT_BYTES


def weights(shape: Shape) -> int:
    """Numbers that a dummy checkpoint of that shape holds, with the vision tower and the audio
    encoder where it has one."""
    towers = (tower for tower in (shape.vision, shape.audio) if tower is not None)
    beside = sum(tower.parameters() for tower in towers) + heads.parameters(shape)
    return shape.parameters() + beside


def write_checkpoint(
    report: Report,
    folder: Path,
    *,
    repo_id: str,
    shape: Shape,
    control: Sequence[ControlToken],
    seed: int = SEED,
    **writing: Any,
) -> None:
    """Fill an empty folder with config, tokenizer, licence note and weights; `writing` goes to
    `write_weights`."""
    # numpy and ml_dtypes stay out of the interpreter that only asks for `bytes_needed`.
    from packager.sources.random_weights import write_weights

    base = base_vocab(shape.vocab, len(control))
    ids = {token.text: base + index for index, token in enumerate(control)}
    dtype = writing.get("dtype", "BF16")
    write_json(
        folder / "config.json",
        {
            **shape.to_config(),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            # Without a version transformers warns that the tokenizer could be a broken one of
            # Mistral's.
            "transformers_version": "4.51.0",
            "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype],
        },
    )
    first = shape.model_type == FIRST_GENERATION
    write_json(
        folder / "generation_config.json",
        {
            # The first generation has no chat template: this key says that it answers in ChatML.
            **({"chat_format": "chatml"} if first else {}),
            "bos_token_id": ids["<|endoftext|>"],
            "do_sample": False,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        },
    )
    if first:
        write_atomically(folder / tiktoken.FILE, tiktoken_ranks(base))
        write_json(
            folder / "tokenizer_config.json",
            {"model_max_length": shape.context, "tokenizer_class": "QWenTokenizer"},
        )
    else:
        write_atomically(folder / "tokenizer.json", tokenizer_json(base, control, shape.task))
        sees = shape.vision is not None
        hears = shape.audio.generation if shape.audio is not None else None
        settings = tokenizer_config(base, control, shape.context, pictures=sees, sound=hears)
        write_json(folder / "tokenizer_config.json", settings)
    write_atomically(folder / "LICENSE", _NOTE.format(repo_id=repo_id).encode())
    if shape.vision is not None:
        write_json(folder / PREPROCESSORS[0], _preprocessor(shape.vision))
    if shape.audio is not None:
        write_json(folder / PREPROCESSORS[0], _features(shape.audio))
    total = weights(shape) * ITEM_BYTES[dtype]
    for done in write_weights(folder, _tensors(shape), seed=seed, **writing):
        report.progress(done, total)


def _tensors(shape: Shape) -> Iterator[TensorSpec]:
    """Those of the decoder, and of the towers under the names of their official repositories."""
    yield from tensors(shape)
    if shape.vision is not None:
        naming = naming_of(shape)
        outer = naming.head or ("" if naming.decoder == "qwen2" else "model.")
        for name, size in shape.vision.tensors():
            yield TensorSpec(outer + name, size)
    if shape.audio is not None:
        # Qwen2-Audio's stand beside the decoder's, which are the ones with a name before them.
        outer = naming_of(shape).head if shape.audio.window is None else ""
        for name, size in shape.audio.tensors():
            yield TensorSpec(outer + name, size)
    if shape.draft_layers:
        yield from heads.tensors(shape)


def _features(tower: AudioTower) -> JsonObject:
    """preprocessor_config.json as those of Qwen3-ASR and Qwen2-Audio."""
    features: JsonObject = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": MELS,
        "hop_length": HOP,
        "n_fft": FRAME,
        "sampling_rate": RATE,
    }
    return features if tower.window is None else {**features, "chunk_length": tower.window}


def _preprocessor(tower: Tower) -> JsonObject:
    """preprocessor_config.json as the official repositories have it. Source: those of
    Qwen/Qwen2-VL-2B-Instruct and Qwen/Qwen3-VL-2B-Instruct."""
    later = tower.generation == "qwen3_vl"
    half = [0.5, 0.5, 0.5]
    return {
        "image_mean": half if later else [0.48145466, 0.4578275, 0.40821073],
        "image_std": half if later else [0.26862954, 0.26130258, 0.27577711],
        "merge_size": MERGE,
        "patch_size": tower.patch,
        "temporal_patch_size": FRAMES,
    }
