"""Memory of fine-tuning, by component, on GPUs: low-rank adapters, quantized ones, and all weights.

memory(shape, "qlora", sequence=2048)      what each GPU holds, with the range it is known to

The published tables of Qwen's first generation (QwenLM/Qwen, README, "Profiling of Memory and
Speed") are its measure: one A100 80 GB, its finetune.py, adapters of rank 64 on every linear layer,
gradient checkpointing, AdamW. Three numbers are fitted to the adapters of 1.8B and 14B, and the
rest is the check (tests/test_training.py): what a process holds beside the model, and the bytes of
logits and their gradients, in bfloat16 with a float32 copy or in float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from packager.json_values import JsonObject
from packager.shape import Shape, tensors

Method = Literal["lora", "lora-emb", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "lora-emb", "qlora", "full")
SOURCE = (
    "QwenLM/Qwen README.md#profiling-of-memory-and-speed and finetune.py; DeepSpeed ZeRO "
    "(arXiv 1910.02054)"
)
RANK = 64
SPREAD = 0.15
"""Share by which a figure may be off: of 81 published ones 80 lie within it."""

_OVERHEAD = 1.4e9
_LOGIT_BYTES = {"lora": 13, "lora-emb": 13, "qlora": 7, "full": 13}
_INT4 = (4 + 20 / 128) / 8
"""Bytes of a weight in GPTQ with groups of 128: a scale of 16 bits and a zero point of 4 for each
group."""
_LIVE = 2e9
"""Weights that ZeRO-3 keeps gathered: a thousand million parameters (stage3_max_live_parameters of
its configuration)."""


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes of one GPU while it trains. `split` says that ZeRO-3 shares weights, gradients and
    optimizer among the GPUs.

    `working` is the larger of the activations and what a step of the optimizer takes for itself:
    the allocator gives the one's memory to the other. `trained` counts parameters.
    """

    method: Method
    sequence: int
    batch: int
    gpus: int
    split: bool
    trained: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    working: int
    overhead: int
    notes: tuple[str, ...] = ()

    @property
    def each(self) -> int:
        """What one GPU holds at its peak."""
        return (
            self.weights
            + self.adapters
            + self.gradients
            + self.optimizer
            + self.working
            + self.overhead
        )

    @property
    def low(self) -> int:
        """The least it may be."""
        return round(self.each * (1 - SPREAD))

    @property
    def high(self) -> int:
        """The most it may be."""
        return round(self.each * (1 + SPREAD))

    def as_dict(self) -> JsonObject:
        """JSON form."""
        parts = ("weights", "adapters", "gradients", "optimizer", "working", "overhead")
        return {
            "method": self.method,
            "sequence": self.sequence,
            "batch": self.batch,
            "gpus": self.gpus,
            "zero3": self.split,
            "trained_parameters": self.trained,
            "components": {name: getattr(self, name) for name in parts},
            "each_bytes": self.each,
            "low_bytes": self.low,
            "high_bytes": self.high,
            "total_bytes": self.each * self.gpus,
            "notes": list(self.notes),
            "source": SOURCE,
        }


def memory(
    shape: Shape,
    method: Method,
    *,
    sequence: int = 2048,
    batch: int = 1,
    gpus: int = 1,
    split: bool | None = None,
) -> Training:
    """What each of `gpus` holds. `split` shares the weights by ZeRO-3, which only `lora` and `full`
    can; None: `full` does.

    Without it every GPU has all weights, and only the optimizer's state is shared (ZeRO-2). `batch`
    is that of one GPU.
    """
    split = method == "full" if split is None else split and method in ("lora", "full")
    total, embedding = shape.parameters(), shape.vocab * shape.hidden
    outer = embedding if shape.tied else 2 * embedding
    adapters = 0 if method == "full" else RANK * _widths(shape)
    share = gpus if split else 1
    if method == "full":
        weights, trained = 2 * total / share, total
        extra, gradients, optimizer, step = (
            0.0,
            2 * total / share,
            12 * total / share,
            4 * total / share,
        )
    else:
        weights = (_INT4 * (total - outer) + 4 * outer if method == "qlora" else 2 * total) / share
        # In float32, with the copy in bfloat16 that mixed precision computes with.
        extra, gradients, optimizer, step, trained = (
            6.0 * adapters,
            4.0 * adapters,
            8 * adapters / gpus,
            0.0,
            adapters,
        )
        if method == "lora-emb":
            # A second copy of embedding and output matrix, trained in bfloat16 as it is; the
            # optimizer's step takes as much again.
            copies = 2 * embedding
            trained += copies
            extra, gradients, optimizer, step = (
                extra + 2 * copies,
                gradients + 2 * copies,
                optimizer + 4 * copies / gpus,
                4 * copies,
            )
    activations = float(
        batch * sequence * (_LOGIT_BYTES[method] * shape.vocab + 2 * shape.layers * shape.hidden)
    )
    if split and gpus > 1:
        # Gathered for the layers at work, and the output matrix whole.
        activations += _LIVE + 2 * embedding
    return Training(
        method,
        sequence,
        batch,
        gpus,
        split and gpus > 1,
        trained,
        round(weights),
        round(extra),
        round(gradients),
        round(optimizer),
        round(max(activations, step)),
        round(_OVERHEAD),
        tuple(_notes(shape, method, split and gpus > 1)),
    )


@cache
def _widths(shape: Shape) -> int:
    """Inputs and outputs of every linear layer that gets adapters, added up; a mixture's experts
    get none."""
    matrices = (
        tensor
        for tensor in tensors(shape)
        if len(tensor.shape) == 2 and not any(word in tensor.name for word in _BARE)
    )
    return sum(sum(tensor.shape) for tensor in matrices)


_BARE = (".experts.", "embed_tokens", "lm_head", ".wte.", ".mlp.gate.", "shared_expert_gate")


def _notes(shape: Shape, method: Method, split: bool) -> list[str]:
    notes = []
    if method == "qlora":
        notes.append(
            "The adapters of Q-LoRA are not merged into the quantized weights: they stay a second "
            "file, or go into the unquantized ones."
        )
        notes.append(
            "Weights of 4 bits take no new special tokens: embedding and output matrix stay as "
            "they are."
        )
    if method == "lora-emb":
        notes.append(
            "Embedding and output matrix are trained too, as a base variant needs for the tokens "
            "of a chat; ZeRO-3 cannot do that."
        )
    if method == "lora":
        notes.append("New special tokens, as of a chat on a base variant, need `lora-emb`.")
    if split:
        notes.append("ZeRO-3 shares the weights and asks for a fast connection between the GPUs.")
    if shape.experts:
        notes.append(
            "The experts get no adapters here. The published tables are of dense variants: for a "
            "mixture this is an estimate."
        )
    elif shape.hybrid:
        notes.append(
            "The published tables are of variants with attention in every layer: for this one it "
            "is an estimate."
        )
    return notes
