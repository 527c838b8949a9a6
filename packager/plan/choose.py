"""From what a person asks for to a frozen Plan; the CLI and the TUI both come through here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from packager import catalog, sources
from packager.catalog import Variant
from packager.device.identity import UNKNOWN, Here, Identity, place
from packager.device.target import Target
from packager.errors import ExitCode, PackError, usage
from packager.json_values import list_at
from packager.names import plain_name
from packager.need.workload import Workload
from packager.plan.additions import Additions, applied, for_folder
from packager.plan.adoption import (
    Recognised,
    adoptable,
    recognise,
    refuse_with_adopted,
    refuse_without_adopted,
    source_of,
)
from packager.plan.plan import Plan, package_name
from packager.quality.gate import Gate
from packager.runtime import Runtime
from packager.select import Candidate, candidates, choose
from packager.select.misses import nearest_misses
from packager.shape import Shape
from packager.sources import adapters as loras
from packager.sources import hub_variant
from packager.sources.hub_file import HubFile

NAMED = ("hub", "dummy", "modelscope")
"""What `--weights` may say besides a folder."""


def make_plan(
    target: Target,
    workload: Workload,
    runtimes: Sequence[Runtime],
    *,
    model: str | None = None,
    recipe: str | None = None,
    weights: str = "hub",
    revision: str | None = None,
    offline: bool = False,
    out: Path | None = None,
    enforced: frozenset[str] = frozenset(),
    version: str | None = None,
    here: Here | None = None,
    gate: Gate | None = None,
    additions: Additions | None = None,
    lora: Sequence[str] = (),
    against: str | None = None,
    tokenizer: str | None = None,
    hub_file: HubFile | None = None,
) -> Plan:
    """Choose among the catalogue, or take the variant that was named or lies in a folder, or a
    model that was converted already.

    `here` is this machine, so that what is measured on it is known as the device's figures or
    somebody else's. Raises PackError: exit code 3 when nothing fits, with the nearest misses; 2 for
    an unknown name; 6 for a folder that holds no usable checkpoint. With `additions` only runtimes
    that know them take part. `lora` names adapters as `sources.adapters.parse` takes them; the base
    is the one that they name where nothing else does. `against` is a checkpoint, a folder or
    OWNER/NAME on the hub, that an adopted model is compared with, `tokenizer` a folder with the
    tokenizer that it is held against, `hub_file` where it came from, in place of `weights`.
    """
    known: Recognised | None = None
    variants: tuple[Variant, ...]
    if hub_file is not None:
        weights, revision = str(hub_file.path), None
    if weights not in NAMED and (adopted := adoptable(weights, runtimes)) is not None:
        refuse_with_adopted(adopted, workload, additions, lora, recipe)
        known = recognise(adopted, model, against, revision, offline, hub_file)
        runtimes, variants = (adopted.runtime,), (known.variant,)
        recipe = recipe or adopted.recipe.id
    else:
        refuse_without_adopted(against, tokenizer)
        if additions is not None and weights not in NAMED:
            additions = for_folder(additions, weights)
        runtimes = applied(runtimes, additions or Additions(), recipe)
        adapters = loras.parse(lora, offline)
        variants, base = with_adapters(
            *(model, weights, adapters, revision, offline),
            pictures=workload.pictures,
            sound=workload.sound,
        )
    considered = candidates(
        target, workload, variants or catalog.load(), runtimes, recipe=recipe, named=bool(variants)
    )
    chosen = choose(considered)
    if chosen is None:
        raise _nothing_fits(
            target, workload, considered, runtimes, variants, local=weights not in NAMED
        )
    if known is not None:
        source = source_of(known, against, tokenizer, revision, offline)
    else:
        source = sources.parse(weights, chosen.variant.repo_id, revision, offline)
        if adapters:
            source = replace(source, adapters=adapters, base=base)
    return Plan(
        target=target,
        workload=workload,
        chosen=chosen,
        others=tuple(candidate for candidate in considered if candidate is not chosen),
        runtime=next(runtime for runtime in runtimes if runtime.name == chosen.runtime),
        source=source,
        out=Path(os.path.normpath((out or Path(package_name(chosen, source))).absolute())),
        enforced=enforced,
        version=version,
        place=UNKNOWN if here is None else place(Identity.of(target), here),
        gate=gate or Gate(),
        additions=additions or Additions(),
        recognised=known,
    )


def named_variants(
    model: str | None,
    weights: str,
    revision: str | None = None,
    offline: bool = False,
    *,
    pictures: bool = False,
    sound: bool = False,
) -> tuple[Variant, ...]:
    """The variant that the user named, by its name or by a folder; empty when qwen-pack is to
    choose.

    With weights from the hub it may be any repository there whose network is a Qwen's. With
    `pictures` a folder must hold a whole vision tower, with `sound` a whole audio encoder.
    """
    variant = _by_name(model, weights, revision, offline) if model else None
    if weights in NAMED:
        return (variant,) if variant else ()
    folder = Path(weights).resolve()
    if any("\ud800" <= char <= "\udfff" for char in str(folder)):
        # Tokenizers and engines take paths as text, and cannot open it.
        raise usage(
            f"The path {str(folder)!r} is not valid UTF-8.",
            "Rename the folder, or name it by a link that is.",
        )
    source = sources.parse(
        weights, variant.repo_id if variant else f"local/{plain_name(folder.name)}"
    )
    folder = Path(source.location)
    return (variant_in(folder, source.repo_id, variant, pictures=pictures, sound=sound),)


def with_adapters(
    model: str | None,
    weights: str,
    adapters: Sequence[loras.AdapterSource],
    revision: str | None = None,
    offline: bool = False,
    *,
    pictures: bool = False,
    sound: bool = False,
) -> tuple[tuple[Variant, ...], Shape | None]:
    """`named_variants` in the shape that they have with the adapters, whose base is the one that
    they name where nothing else does; and the shape of that base, None without adapters."""
    if adapters and model is None and weights in NAMED:
        model = loras.base_named(adapters)
    variants = named_variants(model, weights, revision, offline, pictures=pictures, sound=sound)
    base = variants[0].shape if adapters else None
    if base is None:
        return variants, None
    adapted = loras.adapted(base, variants[0].repo_id, adapters)
    return (replace(variants[0], shape=adapted),), base


def _by_name(model: str, weights: str, revision: str | None, offline: bool) -> Variant:
    on_hub = weights == "hub"
    return hub_variant.find(model, revision, offline) if on_hub else catalog.find(model)


def variant_in(
    folder: Path,
    repo_id: str,
    variant: Variant | None,
    *,
    pictures: bool = False,
    sound: bool = False,
) -> Variant:
    """The checkpoint in a folder as a Variant: with what the catalogue knows where it was named,
    with its shape alone where not.

    Raises PackError (exit code 6) for a folder that holds no usable checkpoint, and with `pictures`
    for one without a whole vision tower, with `sound` for one without a whole audio encoder.
    """
    from packager.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(folder)
    tower = checkpoint.vision().tower if pictures else None
    encoder = checkpoint.audio().tower if sound else None
    if variant is not None:
        # The folder decides: a fine-tune may have grown its vocabulary. What else must agree is
        # checked when it is fetched.
        return replace(
            variant,
            shape=checkpoint.shape,
            tower=tower or variant.tower,
            audio_tower=encoder or variant.audio_tower,
        )
    architecture = str((list_at(checkpoint.config, "architectures") or ["unknown"])[0])
    return hub_variant.bare(
        repo_id,
        checkpoint.shape,
        architecture,
        checkpoint.chat_template is None,
        tower=tower,
        audio_tower=encoder,
    )


def _nothing_fits(
    target: Target,
    workload: Workload,
    found: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    variants: Sequence[Variant],
    local: bool,
) -> PackError:
    misses = nearest_misses(target, workload, found, runtimes, named=bool(variants), limit=3)
    ways = "".join(
        f" {miss.candidate.label} would, with {miss.change} ({miss.flag})." for miss in misses
    )
    if found and variants and not misses:
        ways = f" {found[0].label}: {'; '.join(map(str, found[0].reasons))}."
    return PackError(
        f"Nothing fits {target.name} for {workload.use_case} at a context of "
        f"{workload.context}.{ways}",
        "Ask for less, or name another recipe or target."
        if local
        else "`qwen-pack fit --all` lists every candidate and why it was rejected. It takes the "
        "same flags except --runtime and --weights.",
        ExitCode.NOTHING_FITS,
    )
