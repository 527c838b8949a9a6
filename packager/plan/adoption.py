"""From a model that somebody else has converted to the variant that it is, and to its source.

What the file says of itself proves nothing. A variant of the catalogue is named where the user
names it, where the checkpoint that the model is compared with is one, where the file names one of
the same shape, or where only one has that shape; how it was recognised goes into the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from packager import catalog, sources
from packager.catalog import Variant
from packager.catalog.licences import plain
from packager.errors import bad_input, usage
from packager.files import expanded
from packager.json_values import JsonObject, at_or_none, texts_at
from packager.names import plain_name
from packager.need.usecases import use_case
from packager.need.workload import Workload
from packager.plan.additions import Additions
from packager.plan.adopted import Adopted, Adopts
from packager.recipe import split_id
from packager.runtime import Runtime
from packager.shape import Shape
from packager.sources import Source, hub_variant
from packager.sources.adopted import AdoptedFiles, tokenizer_folder
from packager.sources.hub_file import HubFile

By = Literal["user", "against", "name", "shape", "nothing"]

_SAME = (
    *("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "tied"),
    *("qkv_bias", "qk_norm", "experts", "hybrid"),
)
"""What has to be equal of a variant and a file. Vocabularies are padded as every writer likes."""
_PADDING = 4096
_WORDS = re.compile(r"[^a-z0-9.]+")


@dataclass(frozen=True)
class Recognised:
    """An adopted model with the variant that it is, `by` what that is known, and every variant of
    the catalogue that has its shape."""

    model: Adopted
    variant: Variant
    by: By
    alike: tuple[str, ...]
    origin: HubFile | None = None

    def sentence(self) -> str:
        """What it is, in a sentence."""
        name = self.variant.name
        how = {
            "user": f"{name}, as the user says",
            "against": f"{name}, with which it is compared",
            "name": f"{name} by its own name and its shape",
            "shape": f"{name}, the only variant of its shape",
            "nothing": "which variant it was made from is not known",
        }[self.by]
        file = self.model.place.name
        return f"{file} was converted already and is taken as it is: {how}, {self.model.recipe.id}."

    def as_dict(self) -> JsonObject:
        """For the manifest and for `adopt`."""
        return {
            "variant": self.variant.repo_id,
            "by": self.by,
            "alike": list(self.alike),
            "recipe": self.model.recipe.id,
            "types": dict(self.model.types),
            "says": dict(self.model.says),
            **({"origin": self.origin.as_dict()} if self.origin else {}),
        }


def adoptable(weights: str, runtimes: Sequence[Runtime]) -> Adopted | None:
    """The model that `--weights` names, where one of the runtimes takes it as it is; None for
    everything else. Raises PackError as `Adopts.adopt`."""
    path = expanded(weights).absolute()
    if not path.exists():
        return None
    for runtime in runtimes:
        if isinstance(runtime, Adopts):
            model = runtime.adopt(path)
            if model is not None:
                return model
    if path.is_file():
        raise usage(
            f"{weights!r} is a file that no runtime takes as it is.",
            "Name a .gguf file, or the folder of a checkpoint or of a converted model.",
        )
    return None


def recognise(
    model: Adopted,
    name: str | None = None,
    against: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    origin: HubFile | None = None,
) -> Recognised:
    """The variant that a model is; `name` is what the user calls it, `against` the checkpoint that
    it is compared with, `origin` where it came from.

    Raises PackError: exit code 6 where the variant or the checkpoint has another shape; 2 and 5 as
    a name that is looked up.
    """
    alike = tuple(variant for variant in catalog.load() if is_alike(model, variant.shape))
    names = tuple(variant.repo_id for variant in alike)
    if against is not None:
        if expanded(against).is_dir():
            model = _compared(model, expanded(against).absolute())
        else:
            variant = hub_variant.find(against, revision, offline)
            _refuse_other(model, variant.shape, variant.repo_id, exactly=True)
            if name is None:
                return Recognised(model, _shaped(model, variant), "against", names, origin)
    if name is not None:
        variant = catalog.find(name)
        _refuse_other(model, variant.shape, variant.repo_id)
        return Recognised(model, _shaped(model, variant), "user", names, origin)
    named = _told(model, alike)
    if named is not None:
        return Recognised(model, _shaped(model, named), "name", names, origin)
    fitting = [variant for variant in alike if variant.chat == model.chats]
    if len(fitting) == 1 and not texts_at(model.says, "base_models"):
        return Recognised(model, _shaped(model, fitting[0]), "shape", names, origin)
    bare = hub_variant.bare(
        f"local/{plain_name(_stem(model))}",
        model.shape,
        "unknown",
        not model.chats,
        plain(origin.license if origin and origin.license else model.says.get("license")),
    )
    return Recognised(model, bare, "nothing", names, origin)


def refuse_with_adopted(
    model: Adopted,
    workload: Workload,
    additions: Additions | None,
    lora: Sequence[str],
    recipe: str | None,
) -> None:
    """Raise PackError (usage) for what is asked of a conversion, which there is none of, and for a
    model that makes no text: how it pools is not told by its files alone."""
    if model.shape.task != "generate":
        raise usage(
            f"{model.place.name} makes vectors or scores and no text.",
            "Build an embedder or a reranker from its checkpoint, with --use-case embed or rerank; "
            "`attest` compares this one with it.",
        )
    flags = [*(additions.flags() if additions else ()), *(["--lora"] if lora else ())]
    if flags:
        raise usage(
            f"{flags[0]} goes into a conversion, and {model.place.name} is taken as it is.",
            "Leave it out, or build from the checkpoint.",
        )
    if use_case(workload.use_case).task != "generate" or workload.pictures:
        raise usage(
            f"{model.place.name} is taken as a text generator.",
            "Build an embedder, a reranker or a model that sees from its checkpoint.",
        )
    if recipe is not None:
        prefix, weights, _ = split_id(recipe)
        own = model.recipe
        if (prefix, weights) != (own.prefix, own.weights):
            raise usage(
                f"{model.place.name} is {own.id}, not {recipe}.",
                "Leave --recipe out: it is taken as it is.",
            )


def refuse_without_adopted(against: str | None, tokenizer: str | None) -> None:
    """Raise PackError (usage) for what only an adopted model is compared with."""
    for flag, value in (("--against", against), ("--tokenizer", tokenizer)):
        if value is not None:
            raise usage(
                f"{flag} is for a model that was converted already.",
                "Name its file or its folder with --weights, or leave it out.",
            )


def source_of(
    recognised: Recognised,
    against: str | None,
    tokenizer: str | None,
    revision: str | None,
    offline: bool,
) -> Source:
    """The source of an adopted model. Raises PackError (usage) for a folder that is none."""
    model, repo_id = recognised.model, recognised.variant.repo_id
    other = None
    if revision is not None and against is None:
        raise usage(
            "--revision names a commit of the hub, and nothing comes from there.",
            "Leave it out, or name a repository with --against.",
        )
    if against is not None:
        if expanded(against).is_dir():
            other = sources.parse(against, repo_id, revision, offline)
        else:
            other = sources.parse("hub", against, revision, offline)
    adopted = AdoptedFiles(
        tuple(str(path) for path in model.files), model.describe, tokenizer_folder(tokenizer)
    )
    return Source(
        model.kind, str(model.place), None, repo_id, offline, adopted=adopted, against=other
    )


def is_alike(model: Adopted, shape: Shape | None) -> bool:
    """Whether a decoder of that shape becomes such a file."""
    if shape is None or shape.model_type not in model.model_types:
        return False
    same = all(getattr(shape, field) == getattr(model.shape, field) for field in _told_by(model))
    return same and abs(shape.vocab - model.shape.vocab) < _PADDING


def _told_by(model: Adopted) -> list[str]:
    return [field for field in _SAME if field not in model.untold]


def _compared(model: Adopted, folder: Path) -> Adopted:
    """The model as what the checkpoint in that folder becomes. Raises PackError as
    `Checkpoint.open`, and exit code 6 for another decoder."""
    # Late: only what is compared needs it.
    from packager.checkpoint import Checkpoint

    shape = Checkpoint.open(folder).shape
    _refuse_other(model, shape, f"made from {folder}", exactly=True)
    return replace(model, shape=_completed(model, shape))


def _refuse_other(
    model: Adopted, shape: Shape | None, repo_id: str, *, exactly: bool = False
) -> None:
    """Raise PackError (exit code 6) where a variant is another decoder; `exactly` asks for a
    vocabulary of as many rows, too."""
    same_rows = shape is not None and shape.vocab == model.shape.vocab
    if is_alike(model, shape) and (same_rows or not exactly):
        return
    own = model.shape
    if shape is None or shape.model_type not in model.model_types:
        what = f"it is a {own.model_type}"
        what += "" if shape is None else f", and {repo_id} a {shape.model_type}"
    else:
        fields = [*_told_by(model), "vocab"]
        field = next(name for name in fields if getattr(shape, name) != getattr(own, name))
        what = f"its {field} is {getattr(own, field)!r} instead of {getattr(shape, field)!r}"
    raise bad_input(
        f"{model.place} is not {repo_id}: {what}.",
        "Name the variant that it was made from, or none.",
    )


def _shaped(model: Adopted, variant: Variant) -> Variant:
    """The variant in the shape of the file, whose vocabulary may be padded otherwise."""
    assert variant.shape is not None
    return replace(variant, shape=_completed(model, variant.shape), tower=None)


def _completed(model: Adopted, shape: Shape) -> Shape:
    """The model's shape, with what it does not tell as it is in that one."""
    untold = {name: getattr(shape, name) for name in model.untold}
    return replace(model.shape, model_type=shape.model_type, **untold)


def _told(model: Adopted, alike: Sequence[Variant]) -> Variant | None:
    """The variant that the file says it is, in its own repository's address or in its name; a file
    that says what it was tuned from is none of them."""
    repo = at_or_none(model.says, "repo", str)
    for variant in alike:
        if repo is not None and repo.casefold() == variant.repo_id.casefold():
            return variant
    bases = {name.casefold() for name in texts_at(model.says, "base_models")}
    named = [
        variant
        for variant in alike
        if _plain(variant.name)
        in (_plain(at_or_none(model.says, "name", str) or ""), _plain(_stem(model)))
    ]
    own = [variant for variant in named if not bases or variant.repo_id.casefold() in bases]
    return own[0] if len(own) == 1 else None


def _stem(model: Adopted) -> str:
    """The file's name without its recipe."""
    weights = re.escape(model.recipe.weights)
    return re.sub(rf"[-_.](UD-)?{weights}$", "", Path(model.name).name, flags=re.IGNORECASE)


def _plain(name: str) -> str:
    return _WORDS.sub(" ", name.casefold()).strip()
