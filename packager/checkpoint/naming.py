"""The names that people's files have for a decoder's tensors, brought to those of the official
checkpoints.

What transformers 5.5 loads with nothing missing is taken (rename_source_key in
core_model_loading.py, conversion_mapping.py); the wrappers of other tools, which it does not see
through, are named in the refusal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from packager.checkpoint.header import TensorInfo
from packager.errors import bad_input
from packager.shape import FIRST_GENERATION, Shape, tensors
from packager.shape.audio import HEARING
from packager.shape.speaking import HEARD_WRONGLY, SPEAKING, SPEECH
from packager.shape.tensors import naming_of
from packager.shape.tower import GENERATIONS

OUTPUT = "lm_head.weight"
_MORE_THAN_STORED = 10_000

# Stored by some exports, and computed from the configuration by everybody: frequencies, masks,
# position numbers; and what Transformer Engine keeps of its own.
_BUFFER = re.compile(
    r"(.*\.)?(rotary_emb\.\w+|position_ids|(self_)?attn\.(bias|masked_bias)"
    r"|attention\.masked_bias|_extra_state)"
)
# The draft module for multi-token prediction, and the vision tower: `visual.` in the repositories
# of Qwen2-VL, `model.visual.` in later ones and where transformers 5 saved it,
# `model.language_model.visual.` where that saved Qwen3.5, `thinker.visual.` in Qwen2.5-Omni.
# `thinker.audio_tower.` is the audio encoder of Qwen3-ASR and Qwen2.5-Omni, whose other parts make
# speech; `audio_tower.` with `multi_modal_projector.` is that of Qwen2-Audio.
_DRAFT = re.compile(r"(model\.)?(?P<name>mtp\..+)")
_TOWER = re.compile(r"(thinker\.|(model\.)?(language_model\.)?)(?P<name>visual\..+)")
_SOUND = re.compile(r"(thinker\.)?(?P<name>(audio_tower|multi_modal_projector)\..+)")
_SPEECH = re.compile(rf"({'|'.join(SPEECH)})\..+")
_LAYER = re.compile(r"(^|\.)(layers|h)\.\d+\.")
_ADAPTER = re.compile(r"(^|\.)(lora_|base_layer\.|modules_to_save\.|adapter)")
_FUSED = "mlp.experts.gate_up_proj"
_EACH = re.compile(r"mlp\.experts\.\d+\.")

_WRAPPERS = {
    "_orig_mod.": (
        "torch.compile",
        "Save the model itself: model._orig_mod.save_pretrained(FOLDER).",
    ),
    "module.": (
        "DataParallel or DDP",
        "Save the model itself: model.module.save_pretrained(FOLDER).",
    ),
    "base_model.model.": (
        "a PEFT wrapper",
        "Merge and save the model: model.merge_and_unload().save_pretrained(FOLDER).",
    ),
    "_fsdp_wrapped_module.": ("FSDP", "Gather the full state and save it with save_pretrained."),
    "_checkpoint_wrapped_module.": (
        "activation checkpointing",
        "Save the model itself with save_pretrained.",
    ),
}


@dataclass(frozen=True, slots=True)
class Named:
    """`expected`: shape by official name. `kept`: tensors under those names. `beside`: stored names
    that are left out."""

    expected: Mapping[str, tuple[int, ...]]
    kept: dict[str, TensorInfo]
    beside: tuple[str, ...]
    strange: tuple[str, ...]

    @property
    def renamed(self) -> bool:
        """Whether a file has another name for a tensor that is used."""
        return any(name != tensor.name for name, tensor in self.kept.items())


def named(where: str, shape: Shape, stored: Mapping[str, TensorInfo]) -> Named:
    """The decoder's tensors among those that are stored, in stored order.

    `strange` are names that belong to no part that may be left out. Raises PackError (exit code 6)
    where two stored tensors are the same one of the decoder, and for names that a wrapper has
    changed.
    """
    expected = expected_of(shape, stored)
    kept: dict[str, TensorInfo] = {}
    beside: list[str] = []
    strange: list[str] = []
    for name, tensor in stored.items():
        official = official_name(name, shape, expected)
        if official is None:
            (beside if _may_be_left_out(name, shape) else strange).append(name)
        elif official in kept:
            raise bad_input(
                f"{tensor.file.name} holds {kept[official].name!r} and {name!r}, which are the "
                "same tensor.",
                f"Keep the one that is meant; {where} describes one network.",
            )
        else:
            kept[official] = tensor
    _refuse_adapters(strange, stored)
    if len(kept) < len(expected):
        _refuse_wrappers([*strange, *beside], next(iter(expected)))
    return Named(expected, kept, tuple(beside), tuple(strange))


def expected_of(shape: Shape, stored: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Shape by official name, the experts of a layer one by one or in one tensor as the files have
    them."""
    naming = naming_of(shape)
    # No more than there are, and some: a config that describes millions is not written out.
    most = len(stored) + _MORE_THAN_STORED
    if shape.experts is None or naming.experts == "fused-transposed":
        return {spec.name: spec.shape for spec in islice(tensors(shape), most)}
    names = [name for name in stored if not _DRAFT.fullmatch(name)]
    if any(_FUSED in name for name in names):
        naming = replace(naming, experts="fused")
    elif any(_EACH.search(name) for name in names):
        naming = replace(naming, experts="each")
    return {spec.name: spec.shape for spec in islice(tensors(shape, naming), most)}


def official_name(name: str, shape: Shape, expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """What an official checkpoint calls a tensor; None for one that is not the decoder's."""
    naming = naming_of(shape)
    # A tied network has no output matrix, but files may.
    known = {naming.head + OUTPUT}
    if name in expected or name in known:
        return name
    for prefix in _prefixes(shape):
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and (naming.body + inner) in expected:
            return naming.body + inner
    inner = name.removeprefix("model.")
    return inner if inner != name and (inner in expected or inner in known) else None


def _prefixes(shape: Shape) -> tuple[str, ...]:
    """What may stand before `layers`, `embed_tokens` and `norm` instead of the official
    beginning."""
    if shape.model_type == FIRST_GENERATION:
        return ("",)
    naming = naming_of(shape)
    if shape.model_type in GENERATIONS or naming.decoder in GENERATIONS:
        whole = ("language_model.",) if naming.config or naming.decoder == "qwen2" else ()
        return ("model.language_model.", "model.model.", *whole, "model.", "")
    return ("",)


def _may_be_left_out(name: str, shape: Shape) -> bool:
    if _BUFFER.fullmatch(name) or _DRAFT.fullmatch(name):
        return True
    if _TOWER.fullmatch(name):
        return shape.model_type in GENERATIONS or naming_of(shape).decoder in GENERATIONS
    if _SOUND.fullmatch(name):
        return shape.model_type in (*HEARING, *HEARD_WRONGLY)
    if _SPEECH.fullmatch(name):
        return shape.model_type in SPEAKING
    # A head that training put beside the decoder (v_head of a reward model). Parts of layers are
    # never left out.
    return not (
        _LAYER.search(name)
        or _ADAPTER.search(name)
        or name.startswith(("model.", naming_of(shape).body))
        or "." not in name
    )


def tower_name(name: str) -> str | None:
    """What the repositories of Qwen2-VL call a tensor of the vision tower (`visual.`); None for one
    that is not the tower's."""
    match = _TOWER.fullmatch(name)
    return match["name"] if match else None


def sound_name(name: str) -> str | None:
    """What a tensor of the audio encoder is called there (`audio_tower.`, and of Qwen2-Audio
    `multi_modal_projector.`); None for one that is not the encoder's."""
    match = _SOUND.fullmatch(name)
    return match["name"] if match else None


def is_speech(name: str) -> bool:
    """Whether a tensor is part of what makes speech of a thinker's states."""
    return bool(_SPEECH.fullmatch(name))


def draft_name(name: str) -> str | None:
    """What a tensor of the draft module for multi-token prediction is called (`mtp.`); None for one
    that is not the module's."""
    match = _DRAFT.fullmatch(name)
    return match["name"] if match else None


def is_computed(name: str) -> bool:
    """Whether a stored tensor is one of those that everybody computes, or that are left out without
    a word or with one of their own."""
    return any(kind.fullmatch(name) for kind in (_BUFFER, _DRAFT, _TOWER, _SOUND, _SPEECH))


def _refuse_adapters(names: Iterable[str], stored: Mapping[str, TensorInfo]) -> None:
    """Raise PackError (exit code 6) for the parts of an adapter that nobody has merged."""
    for name in names:
        if _ADAPTER.search(name):
            raise bad_input(
                f"{name!r} in {stored[name].file.name} is part of an adapter that is not merged.",
                "Merge and save the model: model.merge_and_unload().save_pretrained(FOLDER).",
            )


def _refuse_wrappers(names: Iterable[str], first: str) -> None:
    """Raise PackError (exit code 6) for names that begin with a wrapper's, or with anything else in
    front of the official one of the `first` tensor."""
    for name in names:
        for prefix, (tool, way_on) in _WRAPPERS.items():
            if name.startswith(prefix) or f".{prefix}" in name:
                raise bad_input(
                    f"The tensors' names begin with {prefix!r} ({name!r}), as {tool} leaves them.",
                    way_on,
                )
        if name.endswith(f".{first}"):
            raise bad_input(
                f"The tensors' names begin with {name.removesuffix(first)!r} ({name!r}), which "
                "transformers does not see through.",
                "Save the model that is within: its own save_pretrained(FOLDER) leaves that out.",
            )
