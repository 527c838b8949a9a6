"""A repository of the hub that the catalogue does not know: a fine-tune, as the variant it descends
from."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from packager import catalog
from packager.catalog import Variant
from packager.checkpoint.agreement import (
    refuse_foreign_code,
    refuse_other_inputs,
    refuse_unsupported,
)
from packager.checkpoint.chat_templates import templates_of
from packager.checkpoint.first_generation import text_only
from packager.checkpoint.folder import is_weights, read_json
from packager.checkpoint.kinds import check_config
from packager.errors import PackError
from packager.json_values import JsonObject, at, at_or_none, list_at, object_at, texts_at
from packager.process import run_job
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.shape import Shape, Tower
from packager.shape.audio import HEARING, AudioTower, audio_tower_of
from packager.shape.tower import describes_tower, tower_of

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

# What makes two checkpoints the same network but for their weights and vocabulary.
_SAME = (
    "model_type",
    "hidden",
    "layers",
    "heads",
    "kv_heads",
    "head_dim",
    "intermediate",
    "experts",
    "hybrid",
)


def find(name: str, revision: str | None = None, offline: bool = False) -> Variant:
    """The variant of that name: the catalogue's own, else what the hub has under OWNER/NAME.

    A fine-tune has no published scores, so it counts as named: what its scores would have to reach
    is waived. Raises PackError: 2 for a name that is neither, 5 where the hub does not answer or
    does not let us in, 6 for a configuration that is none of ours.
    """
    try:
        return catalog.find(name)
    except PackError as error:
        if not REPOSITORY.fullmatch(name):
            raise
        unknown = error
    try:
        return on_hub(name, revision, offline)
    except PackError as error:
        sentences = f"{unknown.message} {error.message}"
        raise PackError(sentences, error.hint, error.exit_code) from error


def on_hub(name: str, revision: str | None, offline: bool) -> Variant:
    """What the hub has under that name, as a variant. Raises PackError as `find`."""
    with temporary_folder() as folder:
        arguments = {"repo_id": name, "revision": revision, "offline": offline}
        job = "packager.sources.hub_variant:look_up"
        with closing(run_job(job, arguments, folder / "log")) as work:
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    return _variant(name, stop.value.value)


def look_up(report: Report, *, repo_id: str, revision: str | None, offline: bool) -> JsonObject:
    """A job: what the small files and the card of a repository say; no weights are fetched."""
    from huggingface_hub import constants

    from packager.sources.hub_download import download, repository_folder
    from packager.sources.hub_errors import hub_errors
    from packager.sources.hub_listing import list_checkpoint

    license_id, bases = None, []
    if offline or constants.HF_HUB_OFFLINE:
        from huggingface_hub import snapshot_download

        with hub_errors(repo_id, revision):
            snapshot = snapshot_download(repo_id, revision=revision, local_files_only=True)
        folder = Path(snapshot)
    else:
        listing = list_checkpoint(repo_id, revision)
        license_id, bases = listing.license, list(listing.base_models)
        with hub_errors(repo_id, revision):
            for file in listing.files:
                if not is_weights(file.name):
                    download(repo_id, listing.commit, file, lambda size: None)
        folder = repository_folder(repo_id) / "snapshots" / listing.commit
    return {**described(folder), "license": license_id, "base_models": bases}


def described(folder: Path) -> JsonObject:
    """What the small files of a repository say of it: `shape`, `architecture`, and whether it
    `chats`. Raises PackError (exit code 6) for a configuration that is none of ours."""
    path = folder / "config.json"
    config = read_json(path)
    refuse_unsupported(str(path), config.get("model_type"))
    check_config(path, config)
    refuse_other_inputs(str(path), config)
    refuse_foreign_code(path, config, first=text_only(config))
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    tokenizer = folder / "tokenizer_config.json"
    shape = Shape.from_config(config, str(path))
    chats = bool(templates_of(files, read_json(tokenizer) if tokenizer.exists() else {}))
    return {
        "shape": asdict(shape),
        "tower": _tower(config, shape, str(path)),
        "audio_tower": _audio_tower(config, shape, str(path)),
        "architecture": str((list_at(config, "architectures") or ["unknown"])[0]),
        "chats": chats or config.get("chat_format") == "chatml",
    }


def _tower(config: JsonObject, shape: Shape, where: str) -> JsonObject | None:
    """The fields of the vision tower; None without one, and for one that is not computed: that is
    no reason to refuse the text model."""
    if not describes_tower(config):
        return None
    try:
        return asdict(tower_of(config, shape, where))
    except PackError:
        return None


def _audio_tower(config: JsonObject, shape: Shape, where: str) -> JsonObject | None:
    """The fields of the audio encoder likewise."""
    if shape.model_type not in HEARING:
        return None
    try:
        return asdict(audio_tower_of(config, shape, where))
    except PackError:
        return None


def _variant(repo_id: str, told: JsonObject) -> Variant:
    shape = Shape.from_dict(object_at(told, "shape"))
    tower = Tower.from_dict(object_at(told, "tower")) if told.get("tower") else None
    widths = object_at(told, "audio_tower") if told.get("audio_tower") else {}
    encoder = AudioTower.from_dict(widths) if widths else None
    base = descends_from(shape, texts_at(told, "base_models"))
    licence, chats = at_or_none(told, "license", str), at(told, "chats", bool)
    if base is None:
        architecture = at(told, "architecture", str)
        return bare(
            *(repo_id, shape, architecture, not chats, licence), tower=tower, audio_tower=encoder
        )
    return replace(
        base,
        repo_id=repo_id,
        shape=shape,
        tower=tower,
        audio_tower=encoder,
        base=not chats,
        license=licence,
        license_name=None,
        published_precisions=(),
        notes=(f"A fine-tune on the hub, taken as {base.repo_id}: it has no published scores.",),
        sources={"shape": f"config.json of {repo_id}"},
    )


def descends_from(shape: Shape, named: list[str]) -> Variant | None:
    """The variant of the catalogue that a network is: one that its card names, else the first of
    its shape."""
    alike = [
        variant
        for variant in catalog.load()
        if variant.shape is not None
        and all(getattr(variant.shape, field) == getattr(shape, field) for field in _SAME)
    ]
    wanted = [name.casefold() for name in named]
    by_card = [variant for variant in alike if variant.repo_id.casefold() in wanted]
    return next(iter([*by_card, *alike]), None)


def bare(
    repo_id: str,
    shape: Shape,
    architecture: str,
    base: bool,
    license: str | None = None,
    *,
    tower: Tower | None = None,
    audio_tower: AudioTower | None = None,
) -> Variant:
    """A checkpoint of which nothing but its shape is known, and that of its vision tower and its
    audio encoder."""
    count, seen = shape.parameters(), tower.parameters() if tower else 0
    heard = audio_tower.parameters() if audio_tower else 0
    inputs = {"image": tower, "audio": audio_tower}
    return Variant(
        repo_id=repo_id,
        family="local",
        kind="general",
        base=base,
        thinking="never",
        model_type=shape.model_type,
        architecture=architecture,
        release_date=None,
        license=license,
        license_name=None,
        research_only=False,
        modality_in=("text", *(kind for kind, found in inputs.items() if found)),
        modality_out=("text",),
        shape=shape,
        shape_verified=True,
        tower=tower,
        audio_tower=audio_tower,
        assumed=(),
        params_total=count + seen + heard,
        params_text=count,
        params_active=None,
        params_vision=seen or None,
        params_audio=heard or None,
        params_mtp=None,
        context_native=shape.context,
        context_extended=None,
        published_precisions=(),
        unbuildable=None,
        nearest=None,
        notes=(),
        sources={"shape": "the config.json in the folder"},
    )
