"""Checkpoint -> quantized GGUF in one pass, written as it is read."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint
from packager.cores import cores
from packager.json_values import JsonObject, at
from packager.runtime import Report
from packager.units import human_bytes
from targets.gguf import library, metadata, mix, model_card, repacked, tiktoken
from targets.gguf.arch import architecture
from targets.gguf.arch.base import Architecture
from targets.gguf.head import Head
from targets.gguf.imatrix import check_imatrix, read_imatrix
from targets.gguf.kernels import kernels, row_bytes
from targets.gguf.overrides import Overrides
from targets.gguf.positions import refuse_positions
from targets.gguf.presets import preset_of
from targets.gguf.shards import Shard, shards
from targets.gguf.tensors import TypedTensor, place
from targets.gguf.tokenizer import Vocabulary, read_vocabulary, renamed, with_ends
from targets.gguf.toolchain import toolchain
from targets.gguf.writer import write_gguf


def convert(
    checkpoint: Path | Checkpoint,
    path: Path,
    preset_name: str,
    *,
    overrides: Overrides | None = None,
    threads: int | None = None,
    report: Report | None = None,
    imatrix: Path | None = None,
    max_file_bytes: int | None = None,
    origin: Mapping[str, Any] | None = None,
    profile: Profile | None = None,
    context: int | None = None,
    task: str = "generate",
    repack: bool = False,
    heads: bool = False,
) -> JsonObject:
    """Write the checkpoint (its folder, or opened) as GGUF, in one file or as many as the limit
    takes, and return facts about it.

    `overrides` maps regular expressions over tensor names to ggml types, `imatrix` is a file of
    llama-imatrix, `origin` says where the weights come from (see metadata.collect). `context` is
    the longest sequence that the file is for, None for all that the model was trained for.
    `task` is what the file is for (packager.shape.TASKS); `heads` keeps the draft module for
    multi-token prediction. With `repack` what the checkpoint stores in groups of 4 bits stays so.
    `profile` goes into the chat template and the sampling settings of the file.
    `threads` is all cores by default; the bytes are the same for any number. Raises PackError;
    nothing is left behind then.
    """
    preset = preset_of(preset_name)
    importance = read_imatrix(imatrix) if imatrix is not None else None
    listener: Report = report or _Silent()
    with _no_collection():
        source = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        fixed = profile or Profile()
        spoken = speech.of_folder(source.folder, fixed)
        head = Head.of(source, task)
        converter = architecture(head.config(source.config))
        converter.check()
        refuse_positions(source, context)
        weights = dict(source.tensors)
        if heads:
            converter.keep_heads()
            weights |= source.heads()
        stored = {name: info.shape for name, info in weights.items()}
        decoder = converter.tensors(head.decoder(stored))
        tensors = head.tensors(stored, decoder)
        types = mix.tensor_types(
            metadata.network(converter, preset.file_type),
            decoder,
            preset,
            stored_type(source),
            overrides,
            imatrix=imatrix is not None,
        ) | {tensor.name: "F32" for tensor in tensors if tensor not in decoder}
        taken = repacked.taken_over(source, tensors) if repack else None
        if taken is not None:
            types |= taken.types
        vocabulary = head.vocabulary(with_ends(_vocabulary(source, converter), spoken.ends))
        card = model_card.read(source.folder)
        if card.note is not None:
            listener.note(card.note)
        keys = metadata.collect(
            source,
            converter,
            tensors,
            vocabulary,
            preset.file_type,
            origin,
            template=spoken.template if task == "generate" else None,
            sampling=fixed.sampling,
            head=head,
            card=card,
        )
        typed = list(place(tensors, types, row_bytes))
        check_imatrix(importance, typed)
        files = shards(path, keys, typed, max_file_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(
        files,
        weights,
        kernels(),
        threads or cores().at_once,
        listener,
        importance.weights if importance else None,
        taken,
    )
    facts: JsonObject = {
        "architecture": converter.gguf_name,
        "preset": preset.name,
        **_sizes(files, typed),
        **({"repacked": len(taken.types)} if taken else {}),
        **({"draft_layers": converter.draft_layers} if heads else {}),
        "pre_tokenizer": vocabulary.pre,
        "llama_cpp_python": library.version(),
        "toolchain": toolchain(),
    }
    listener.note(f"{path.name}: {_in_words(facts, len(files))}")
    return facts


def _sizes(files: Sequence[Shard], typed: Sequence[TypedTensor]) -> JsonObject:
    """What the files weigh, and the tensors in them by type."""
    bits = 8 * sum(entry.nbytes for entry in typed)
    return {
        "artifact_bytes": sum(file.path.stat().st_size for file in files),
        "tensors": len(typed),
        "types": dict(Counter(entry.type for entry in typed)),
        "bits_per_weight": round(bits / sum(entry.tensor.elements for entry in typed), 4),
        "header_bytes": sum(len(file.head) for file in files),
    }


def _in_words(facts: JsonObject, files: int) -> str:
    several = f" in {files} files" if files > 1 else ""
    size = human_bytes(at(facts, "artifact_bytes", int))
    return f"{size}{several}, {at(facts, 'bits_per_weight', float):.2f} bits per weight"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Half a million small objects of a vocabulary are made and none is garbage: looking through
    them takes as long as making them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _vocabulary(source: Checkpoint, converter: Architecture) -> Vocabulary:
    ranks = source.folder / tiktoken.FILE
    if ranks.is_file() and not (source.folder / "tokenizer.json").is_file():
        return tiktoken.read_tiktoken(ranks, converter.number("vocab_size"))
    vocabulary = read_vocabulary(source.folder, converter.config, source.tokenizer_config)
    return renamed(vocabulary, converter.renamed_tokens)


def stored_type(source: Checkpoint) -> str:
    """The ggml type nearest to what most of the weights are stored in."""
    return "F32" if source.stored_dtype == "F64" else source.stored_dtype


class _Silent:
    """A report that nobody reads."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """See packager.runtime.Report."""

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""

    def text(self, piece: str) -> None:
        """See packager.runtime.Report."""
