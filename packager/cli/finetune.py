"""`qwen-pack fit --finetune METHOD`: which Qwen can be trained on a GPU, and what that takes of its
memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packager.cli.output import emit_json, emit_table, say
from packager.errors import ExitCode, usage
from packager.json_values import JsonObject
from packager.units import human_bytes, human_count

if TYPE_CHECKING:
    from packager.catalog import Variant
    from packager.device.target import Target
    from packager.predict.finetuning import Method, Training

_ROWS = 12
_PARTS = {
    "weights": "weights",
    "adapters": "what is trained, and its copy to compute with",
    "gradients": "gradients",
    "optimizer": "AdamW's two moments",
    "working": "activations with checkpointing, or the optimizer's step",
    "overhead": "the process itself",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """How it is to be trained."""

    method: Method
    sequence: int
    batch: int
    gpus: int | None = None
    """None: as many as the target has."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One variant on the GPUs of one target."""

    target: Target
    variant: Variant
    training: Training

    @property
    def verdict(self) -> str:
        room = self.target.device.available_bytes
        if self.training.high <= room:
            return "fits"
        return "may miss" if self.training.low <= room else "rejected"

    def as_dict(self) -> JsonObject:
        room = self.target.device.available_bytes
        return {
            "target": self.target.name,
            "variant": self.variant.repo_id,
            "verdict": self.verdict,
            "available_bytes": room,
            **self.training.as_dict(),
        }


def finetune(
    targets: Sequence[Target], variant: Variant | None, wish: Wish, named: bool, as_json: bool
) -> int:
    """Print what fits, for one variant by component or for the catalogue. Exit code 3 where nothing
    does. `named` says that the user named the targets: what is left out of them is said.

    Raises PackError (usage) where none of the targets has a GPU that these methods run on.
    """
    able = _able(targets)
    trials = [
        _trial(target, listed, wish)
        for target in able
        for listed in ((variant,) if variant else _trainable(wish))
        if listed.shape is not None
    ]
    if not trials:
        raise usage(
            f"No source states the shape of {variant.name if variant else 'any variant'}, so its "
            "memory is not known."
        )
    trials.sort(key=_rank)
    if as_json:
        results = [trial.as_dict() for trial in trials]
        emit_json("fit", {"finetune": wish.method, "results": results})
    elif variant is not None and len(able) == 1:
        _show_one(trials[0], None if trials[0].verdict == "fits" else _least(trials[0], wish))
    else:
        _show_many(trials, wish)
    out = ", ".join(target.name for target in targets if target not in able)
    if named and out:
        say(f"Left out, as fine-tuning needs a CUDA GPU: {out}.", err=True)
    fits = any(trial.verdict != "rejected" for trial in trials)
    return ExitCode.DONE if fits else ExitCode.NOTHING_FITS


def _able(targets: Sequence[Target]) -> list[Target]:
    """Those with a GPU that these methods run on. Raises PackError (usage) where there is none."""
    able = [
        target
        for target in targets
        if target.device.runs_on == "gpu" and target.device.computes_with.startswith("cuda")
    ]
    if not able:
        names = ", ".join(target.name for target in targets)
        lack = f"{names} has none" if len(targets) == 1 else f"none of {names} has one"
        raise usage(
            f"Fine-tuning needs a CUDA GPU, and {lack}.",
            "`qwen-pack targets` lists the devices: rtx-4090 and a100-80gb are two.",
        )
    return able


def _trainable(wish: Wish) -> list[Variant]:
    """The variants that one begins with: base models where the embeddings are trained too, tuned
    ones otherwise; training in full takes any."""
    from packager import catalog

    return [
        variant
        for variant in catalog.load()
        if variant.base == (wish.method == "lora-emb") or wish.method == "full"
    ]


def _rank(trial: _Trial) -> tuple[str, bool, bool, int]:
    """By device; the largest that can be trained first, and of the others those that lack least."""
    rejected = trial.verdict == "rejected"
    size = trial.training.each if rejected else -(trial.variant.params_total or 0)
    return (trial.target.name, rejected, trial.verdict != "fits", size)


def _trial(target: Target, variant: Variant, wish: Wish) -> _Trial:
    """With every weight on each GPU where that fits for sure, shared by ZeRO-3 where the method can
    and must."""
    from packager.predict.finetuning import memory

    assert variant.shape is not None
    gpus = wish.gpus or target.device.gpus
    whole = memory(variant.shape, wish.method, sequence=wish.sequence, batch=wish.batch, gpus=gpus)
    if whole.high > target.device.available_bytes and gpus > 1:
        split = memory(
            variant.shape,
            wish.method,
            sequence=wish.sequence,
            batch=wish.batch,
            gpus=gpus,
            split=True,
        )
        whole = min(whole, split, key=lambda one: one.each)
    return _Trial(target, variant, whole)


def _least(trial: _Trial, wish: Wish) -> _Trial | None:
    """The same on as few more GPUs as it takes to fit for sure; None where 16 are too few."""
    more = (
        _trial(trial.target, trial.variant, replace(wish, gpus=count))
        for count in (2, 4, 8, 16)
        if count > trial.training.gpus
    )
    return next((larger for larger in more if larger.verdict == "fits"), None)


def _show_one(trial: _Trial, least: _Trial | None) -> None:
    training, room = trial.training, human_bytes(trial.target.device.available_bytes)
    many = (
        f"each of {training.gpus} GPUs of {trial.target.name}"
        if training.gpus > 1
        else trial.target.name
    )
    verdict = {"fits": "it fits", "may miss": "it may not fit", "rejected": "it does not fit"}[
        trial.verdict
    ]
    say(
        f"{trial.variant.name} by {training.method} with sequences of {training.sequence} tokens, "
        f"{training.batch} at a time, takes "
        f"{human_bytes(training.each)} ({human_bytes(training.low)} to "
        f"{human_bytes(training.high)}) of {room} on {many}: {verdict}."
    )
    if least is not None:
        shared = ", the weights shared by ZeRO-3" if least.training.split else ""
        say(
            f"With {least.training.gpus} of them it fits, at {human_bytes(least.training.each)} "
            f"each{shared}: --gpus {least.training.gpus}"
        )
    for note in training.notes:
        say(f"Note: {note}")
    if (
        trial.variant.context_native is not None
        and training.sequence > trial.variant.context_native
    ):
        say(f"Note: The variant itself reads only up to {trial.variant.context_native} tokens.")
    if trial.variant.params_vision or trial.variant.params_audio:
        say("Note: Only its text decoder is counted, not the encoder of images or sound.")
    say()
    rows = [
        (text, human_bytes(size))
        for name, text in _PARTS.items()
        if (size := getattr(training, name))
    ]
    emit_table("", ("on one GPU", "memory"), rows, right=("memory",))
    say(
        f"{human_count(training.trained)} parameters are trained. Source: the first generation's "
        "published tables.",
        err=True,
    )


def _show_many(trials: Sequence[_Trial], wish: Wish) -> None:
    by_target: dict[str, list[_Trial]] = {}
    for trial in trials:
        by_target.setdefault(trial.target.name, []).append(trial)
    columns = ("target", "verdict", "variant", "memory", "of", "trained")
    rows = [
        (
            name,
            trial.verdict,
            trial.variant.name,
            human_bytes(trial.training.each),
            human_bytes(trial.target.device.available_bytes),
            human_count(trial.training.trained),
        )
        for name, some in by_target.items()
        for trial in some[:_ROWS]
    ]
    emit_table("", columns, rows, right=("memory", "of", "trained"))
    fitting = sum(trial.verdict != "rejected" for trial in trials)
    more = (
        f", the {'largest' if fitting else 'nearest'} {_ROWS} of each device are shown"
        if any(len(some) > _ROWS for some in by_target.values())
        else ""
    )
    say(
        f"By {wish.method}, memory of one GPU: {fitting} of {len(trials)} fit or may{more}.",
        err=True,
    )
    if not fitting:
        ways = [
            f"a shorter --sequence than {wish.sequence}",
            *(["a smaller --batch"] if wish.batch > 1 else []),
            *(["--finetune qlora"] if wish.method != "qlora" else []),
        ]
        say(f"What takes less memory: {', '.join(ways)}.", err=True)
