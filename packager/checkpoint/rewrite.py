"""A checkpoint as engines that read folders know it: official names, a config.json that says what
the weights say.

Of the first generation that is Qwen2 form: the same network under the names that every engine
knows. Its fused attention is three matrices one above the other, so every tensor of the new form is
a run of the old one's bytes: nothing is computed, and nothing is held in memory.

    attn.c_attn -> self_attn.q_proj, k_proj, v_proj      attn.c_proj -> self_attn.o_proj
    mlp.w2 -> mlp.gate_proj (it goes through the activation)      mlp.w1 -> mlp.up_proj
    mlp.c_proj -> mlp.down_proj
    ln_1 -> input_layernorm      ln_2 -> post_attention_layernorm
    wte, ln_f -> embed_tokens, norm
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packager.checkpoint import Checkpoint, tiktoken
from packager.checkpoint.folder import INDEX, is_weights
from packager.checkpoint.header import TensorInfo
from packager.errors import usage
from packager.files import folder_that_appears_whole, write_atomically, write_json
from packager.foreign import bounded_bytes
from packager.json_values import JsonDict, at_or_none
from packager.limits import LICENSE_BYTES
from packager.runtime import Report
from packager.shape import FIRST_GENERATION, as_qwen2

_CHUNK = 1 << 24
_NAMES = {
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "ln_1.weight": "input_layernorm.weight",
    "ln_2.weight": "post_attention_layernorm.weight",
    "mlp.w1.weight": "mlp.up_proj.weight",
    "mlp.w2.weight": "mlp.gate_proj.weight",
    "mlp.c_proj.weight": "mlp.down_proj.weight",
}
_OUTER = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor of the new form: `nbytes` of the tensor `source` from `start` of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str
    start: int
    nbytes: int


def for_every_engine(report: Report, source: Checkpoint, folder: Path) -> Checkpoint:
    """What an engine that reads a folder itself may be given: the checkpoint as it is, or else
    rewritten into `folder`."""
    if source.as_published:
        return in_qwen2_form(report, source, folder)
    if source.shape.model_type == FIRST_GENERATION:
        return rewrite(report, source, folder)
    report.note("rewriting the checkpoint under the official names")
    return under_official_names(report, source, folder)


def in_qwen2_form(report: Report, source: Checkpoint, folder: Path) -> Checkpoint:
    """A first-generation checkpoint rewritten into `folder`; any other as it is, and nothing
    written."""
    if source.shape.model_type != FIRST_GENERATION:
        return source
    report.note("rewriting the checkpoint into Qwen2 form")
    return rewrite(report, source, folder)


def under_official_names(report: Report, source: Checkpoint, folder: Path) -> Checkpoint:
    """Write the decoder's tensors under their official names, in 32 bits at most, with the
    config.json that they bear out.

    `folder` appears whole or not at all. Returns it opened.
    """
    pieces = [_whole(name, tensor) for name, tensor in source.tensors.items()]
    with folder_that_appears_whole(folder) as made:
        _write_weights(report, source, pieces, made / "model.safetensors")
        write_json(made / "config.json", source.config)
        for name, path in source.files.items():
            if name not in ("config.json", INDEX) and not is_weights(name):
                write_atomically(made / name, path.read_bytes())
    return Checkpoint.open(folder)


def rewrite(report: Report, source: Checkpoint, folder: Path) -> Checkpoint:
    """Write the checkpoint in Qwen2 form into `folder`, which appears whole or not at all, and open
    it.

    The context ends at seq_length: beyond it the original changes its rotary frequencies, which the
    Qwen2 form cannot say. Raises PackError (usage) for a checkpoint that is not of the first
    generation.
    """
    if source.shape.model_type != FIRST_GENERATION or source.tiktoken is None:
        raise usage("Only first-generation checkpoints with a qwen.tiktoken are rewritten.")
    pieces = [piece for name, tensor in source.tensors.items() for piece in _pieces(name, tensor)]
    with folder_that_appears_whole(folder) as made:
        _write_weights(report, source, pieces, made / "model.safetensors")
        _write_texts(source, made)
    return Checkpoint.open(folder)


def rows_in_qwen2_form(
    source: Checkpoint, rewritten: bool = True
) -> dict[str, tuple[str, int, int]]:
    """Every tensor of the Qwen2 form of a first-generation checkpoint (`rewritten`), and every
    tensor of any other, as the stored tensor that it is a run of, and the first row and the row
    after its last."""
    first = rewritten and source.shape.model_type == FIRST_GENERATION
    rows = {}
    for name, tensor in source.tensors.items():
        for piece in _pieces(name, tensor) if first else (_whole(name, tensor),):
            row_bytes = max(1, tensor.nbytes // max(1, tensor.shape[0]))
            end = (piece.start + piece.nbytes) // row_bytes
            rows[piece.name] = (name, piece.start // row_bytes, end)
    return rows


def _whole(name: str, tensor: TensorInfo) -> _Piece:
    return _Piece(name, tensor.dtype, tensor.shape, name, 0, tensor.nbytes)


def _pieces(name: str, tensor: TensorInfo) -> Iterator[_Piece]:
    if name in _OUTER or not name.startswith("transformer."):
        yield replace(_whole(name, tensor), name=_OUTER.get(name, name))
        return
    _, _, layer, part = name.split(".", 3)
    if part in _NAMES:
        yield replace(_whole(name, tensor), name=f"model.layers.{layer}.{_NAMES[part]}")
        return
    kind = part.removeprefix("attn.c_attn.")
    third, rows = tensor.nbytes // 3, tensor.shape[0] // 3
    for number, letter in enumerate("qkv"):
        new = f"model.layers.{layer}.self_attn.{letter}_proj.{kind}"
        yield _Piece(new, tensor.dtype, (rows, *tensor.shape[1:]), name, number * third, third)


def _write_weights(report: Report, source: Checkpoint, pieces: list[_Piece], path: Path) -> None:
    total = sum(piece.nbytes for piece in pieces)
    done = 0
    with path.open("xb") as file:
        file.write(_header(pieces))
        for piece in pieces:
            raw = source.raw(piece.source)
            for start in range(piece.start, piece.start + piece.nbytes, _CHUNK):
                end = min(start + _CHUNK, piece.start + piece.nbytes)
                file.write(_in_32_bits(raw[start:end]) if piece.dtype == "F64" else raw[start:end])
                done += end - start
                report.progress(done, total)
            source.release(piece.source)
        file.flush()
        os.fsync(file.fileno())


def _in_32_bits(raw: memoryview) -> bytes:
    # Late: numpy, which rewriting needs for this alone.
    from packager.checkpoint.numbers import as_float32, dtype_of

    return as_float32(raw, dtype_of("F64")).tobytes()


def _header(pieces: list[_Piece]) -> bytes:
    """Length and JSON, padded with spaces so that the data begin at a multiple of eight."""
    # transformers refuses files that do not say which framework's layout they follow.
    entries: JsonDict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for piece in pieces:
        dtype, end = (
            ("F32", offset + piece.nbytes // 2)
            if piece.dtype == "F64"
            else (piece.dtype, offset + piece.nbytes)
        )
        entries[piece.name] = {
            "dtype": dtype,
            "shape": list(piece.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def bpe_of(path: Path) -> bytes:
    """tokenizer.json of a qwen.tiktoken: the same tokens with the merges that make them, and the
    generation's special tokens."""
    from packager.checkpoint.byte_level_bpe import byte_level_bpe
    from packager.checkpoint.control_tokens import QWEN

    ranks = tiktoken.read_ranks(path)
    letters = tiktoken.byte_letters()
    words = [
        "".join(letters[byte] for byte in token) for token in sorted(ranks, key=ranks.__getitem__)
    ]
    return byte_level_bpe(words, tiktoken.merges(ranks), QWEN)


def _write_texts(source: Checkpoint, folder: Path) -> None:
    from packager.checkpoint.byte_level_bpe import tokenizer_config
    from packager.checkpoint.control_tokens import QWEN

    assert source.tiktoken is not None
    write_atomically(folder / "tokenizer.json", bpe_of(source.tiktoken))
    words = len(tiktoken.read_ranks(source.tiktoken))
    shape = as_qwen2(source.shape)
    context = min(shape.context, at_or_none(source.config, "seq_length", int) or shape.context)
    chats = source.chat_template is not None
    end_of_text, end_of_turn = words, words + 2
    settings = {
        **tokenizer_config(words, QWEN, context),
        "chat_template": source.chat_template,
        "eos_token": "<|im_end|>" if chats else "<|endoftext|>",
    }
    write_json(
        folder / "tokenizer_config.json",
        {key: value for key, value in settings.items() if key != "chat_template" or chats},
    )
    config = replace(shape, context=context).to_config()
    ends = [end_of_turn, end_of_text] if chats else [end_of_text]
    ids = {"bos_token_id": end_of_text, "eos_token_id": ends[0]}
    dtypes = {tensor.dtype for tensor in source.tensors.values() if len(tensor.shape) > 1}
    named = (
        {"BF16": "bfloat16", "F16": "float16"}.get(dtypes.pop(), "float32")
        if len(dtypes) == 1
        else "float32"
    )
    write_json(
        folder / "config.json",
        {**config, **ids, "torch_dtype": named, "transformers_version": "4.51.0"},
    )
    sampling = {
        key: source.generation_config[key]
        for key in ("top_p", "top_k", "do_sample", "repetition_penalty")
        if key in source.generation_config
    }
    write_json(
        folder / "generation_config.json",
        {**sampling, **ids, "eos_token_id": ends, "pad_token_id": end_of_text},
    )
    for path in source.licenses:
        write_atomically(folder / path.name, bounded_bytes(path, LICENSE_BYTES))
