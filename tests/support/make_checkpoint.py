"""Tiny checkpoints of the true architectures, written by the same writer as the dummy source: real
files, no engine mocked."""

from __future__ import annotations

from pathlib import Path

from packager.checkpoint.control_tokens import (
    QWEN,
    QWEN2_5,
    QWEN2_5_OMNI,
    QWEN2_AUDIO,
    QWEN3,
    QWEN3_ASR,
)
from packager.shape import Shape
from packager.sources.dummy import write_checkpoint


class Silent:
    """A report that nobody reads."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def text(self, piece: str) -> None:
        pass


class Notes(Silent):
    """A report that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def tiny_shape(
    model_type: str = "qwen3",
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 2,
    kv_heads: int = 1,
    head_dim: int | None = None,
    intermediate: int = 128,
    vocab: int = 1024,
    tied: bool = True,
    context: int = 2048,
) -> Shape:
    """A dense shape; `head_dim` is 32 for Qwen3 unless given, and hidden / heads for Qwen2, whose
    config has no such key."""
    qwen3 = model_type == "qwen3"
    width = head_dim if head_dim is not None else 32 if qwen3 else hidden // heads
    return Shape(
        model_type,
        hidden,
        layers,
        heads,
        kv_heads,
        width,
        intermediate,
        vocab,
        tied,
        not qwen3,
        qwen3,
        context,
    )


def write_tiny(
    folder: Path,
    model_type: str = "qwen3",
    *,
    shape: Shape | None = None,
    shards: int = 1,
    dtype: str = "BF16",
    seed: int = 0,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 2,
    kv_heads: int = 1,
    head_dim: int | None = None,
    intermediate: int = 128,
    vocab: int = 1024,
    tied: bool = True,
    context: int = 2048,
) -> Path:
    """Write a checkpoint with random weights into `folder` (made if it is not there) and return it.

    The `vocab` rows of the embedding hold 256 bytes, merges, and last the generation's control
    tokens; 151,936 gives the true vocabulary. `shards` is the number of files at least; for rows
    that every block type of GGUF divides take hidden=256, intermediate=512. A `shape` overrides
    everything that describes one.
    """
    if shape is None:
        shape = tiny_shape(
            model_type,
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=intermediate,
            vocab=vocab,
            tied=tied,
            context=context,
        )
    folder.mkdir(parents=True, exist_ok=True)
    item = 4 if dtype == "F32" else 2
    limit = 1 << 60 if shards == 1 else shape.parameters() * item // shards
    own = {
        "qwen": QWEN,
        "qwen2_5_omni": QWEN2_5_OMNI,
        "qwen2_audio": QWEN2_AUDIO,
        "qwen3": QWEN3,
        "qwen3_asr": QWEN3_ASR,
    }
    control = own.get(shape.model_type, QWEN2_5)
    write_checkpoint(
        Silent(),
        folder,
        repo_id="tests/tiny",
        shape=shape,
        control=control,
        seed=seed,
        dtype=dtype,
        max_shard_bytes=limit,
    )
    return folder
