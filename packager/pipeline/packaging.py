"""Package: the folder that is shipped. Files first, the manifest last, the whole folder renamed
into place."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from packager import __version__, papers
from packager.catalog import licences
from packager.catalog.licences import spdx
from packager.chat import speech
from packager.checkpoint import Checkpoint
from packager.errors import bad_input, usage
from packager.files import copy_hashed, replace_folder, sha256, write_atomically
from packager.inspection import refuse_unsafe
from packager.json_values import JsonObject, at, object_or_empty
from packager.names import plain_name
from packager.package import manifest, sampling
from packager.package.content import content_sha256
from packager.package.manifest import FileEntry
from packager.package.package import DRAFT, MODEL, Package
from packager.package.verify import strangers
from packager.papers import licence
from packager.pipeline.job import checkpoint_of
from packager.pipeline.package_readme import package_readme
from packager.pipeline.stages import Made
from packager.pipeline.use import audio_of, projector_of, retrieval_of, vision_of
from packager.plan.plan import Plan
from packager.records.contents import Predicted
from packager.report import figures
from packager.report.budgets import limits, verdicts
from packager.scratch import flush_tree, scratch_folder
from packager.sources import adapters

_OUT = "out/"
_DRAFT = f"{DRAFT}/"
_DRAFT_LICENCE = "draft-licence"


def write(
    plan: Plan, build_key: str, made: Made, losers: Sequence[JsonObject] = ()
) -> Generator[tuple[int, int], None, Package]:
    """Copy, hash and describe; yields (bytes done, bytes in all) and returns the Package.

    A package of ours that stands in the way is replaced only once the new one is whole. Raises
    PackError (usage) where somebody has put something of his own there since the build was planned.
    """
    checkpoint = checkpoint_of(made.fetched)
    model_files = [row for row in made.converted.files if row.path.startswith(_OUT)]
    total = sum(row.size for row in (*model_files, *_draft_entries(made)))
    done = 0
    with replacing(plan.out) as folder:
        entries = []
        for row in model_files:
            name = row.path.removeprefix(_OUT)
            role = manifest.PROJECTOR if name == projector_of(plan) else ""
            entry = FileEntry(f"{MODEL}/{name}", row.size, row.sha256, role)
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
            for size in _copied(made.converted.folder / row.path, folder / entry.path, entry):
                done += size
                yield done, total
            entries.append(entry)
        for entry in _draft_entries(made):
            copy = folder / entry.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            assert made.drafting is not None and made.drafting.draft is not None
            source = made.drafting.draft.folder / entry.path.removeprefix(_DRAFT)
            for size in _copied(source, copy, entry):
                done += size
                yield done, total
            entries.append(entry)
        model = tuple(entry for entry in entries if entry.role != manifest.DRAFT)
        entries += _draft_papers(plan, folder, made)
        entries += _papers(plan, checkpoint, folder, model, made)
        manifest.write(
            folder, papers.added(folder, _describe(plan, build_key, made, tuple(entries), losers))
        )
        # Read as anybody will read it, while there is still the old package to keep.
        known = manifest.read(folder)
        refuse_unsafe(folder, known, str(plan.out))
    return Package(plan.out, known)


def _draft_entries(made: Made) -> list[FileEntry]:
    """The files of a draft that pays, as they lie in the package."""
    draft = made.drafting.draft if made.drafting else None
    if draft is None:
        return []
    return [replace(row, path=f"{_DRAFT}{row.path}", role=manifest.DRAFT) for row in draft.files]


def _draft_papers(plan: Plan, folder: Path, made: Made) -> list[FileEntry]:
    """The licence of a draft that pays, which may be another one than the model's."""
    draft = made.drafting.draft if made.drafting else None
    if draft is None or plan.draft is None:
        return []
    place = folder / _DRAFT_LICENCE
    place.mkdir()
    variant: JsonObject = {"repo_id": plan.draft.variant, "license": draft.license}
    names = licence.write(place, draft.papers, variant, plan.draft.recipe, dummy=False)
    paths = [f"{_DRAFT_LICENCE}/{name}" for name in names]
    return [
        FileEntry(path, (folder / path).stat().st_size, sha256(folder / path)) for path in paths
    ]


def _copied(source: Path, destination: Path, entry: FileEntry) -> Iterator[int]:
    """Copy a file of the artifact; yields sizes. Raises PackError (exit code 6) where it is not
    what the conversion wrote."""
    size = 0
    copy = copy_hashed(source, destination)
    while True:
        try:
            step = next(copy)
        except StopIteration as stop:
            if (size, stop.value) != (entry.size, entry.sha256):
                raise bad_input(
                    f"{source} changed while it was packaged.", "The same command makes it again."
                ) from None
            return
        size += step
        yield step


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A new folder on the disk of `final`, which takes its place when the block ends well; the old
    content goes last."""
    with scratch_folder(final.parent) as holder:
        new = holder / "new"
        new.mkdir()
        yield new
        if final.exists() and strangers(final):
            raise usage(
                f"{final} holds files that qwen-pack did not write.",
                "Choose another folder with --out; everything is in the cache.",
            )
        flush_tree(new)
        replace_folder(new, final, holder / "old")


def _papers(
    plan: Plan, checkpoint: Path, folder: Path, model: tuple[FileEntry, ...], made: Made
) -> list[FileEntry]:
    """Licence, chat template and the README that stand beside the model."""
    chosen = plan.chosen
    variant = {"repo_id": chosen.variant.repo_id, "license": _licence(plan, made)}
    written = licence.write(
        folder,
        checkpoint,
        variant,
        chosen.recipe.id,
        dummy=plan.source.kind == "dummy",
        adapters=[at(row, "location", str) for row in adapters.recorded(made.fetched.facts)],
        adopted=plan.source.adopted is not None,
    )
    speaks = plan.shape.task == "generate"
    text = speech.of_folder(checkpoint, plan.profile).template if speaks else None
    if text is not None:
        write_atomically(folder / "chat_template.jinja", text.encode())
        written.append("chat_template.jinja")
    size, names = sum(entry.size for entry in model), [entry.path for entry in model]
    write_atomically(folder / "README.md", package_readme(plan, size, made, names, text).encode())
    written.append("README.md")
    return [
        FileEntry(name, (folder / name).stat().st_size, sha256(folder / name)) for name in written
    ]


def _changed(facts: JsonObject) -> JsonObject:
    """What was done to the weights before they were quantized: dequantized, adapters merged."""
    rows = adapters.recorded(facts)
    return {
        **({"quantized": facts["quantized"]} if facts.get("quantized") else {}),
        **({"adapters": rows} if rows else {}),
    }


def _endpoint(plan: Plan, facts: JsonObject) -> JsonObject:
    """The server that the weights came from, where that is not the usual one."""
    origin = plan.recognised.origin if plan.recognised else None
    endpoint = facts.get("endpoint") or (origin.endpoint if origin else None)
    return {"endpoint": endpoint} if endpoint else {}


def _adopted(plan: Plan, facts: JsonObject) -> JsonObject:
    """What an adopted model is, how that is known, and what it was compared with; nothing is said
    of a checkpoint that nobody has seen."""
    if plan.recognised is None:
        return {}
    against, source = object_or_empty(facts, "against"), plan.source.against
    compared: JsonObject = {}
    if source is not None:
        location = source.location
        compared = {
            "kind": source.kind,
            "location": plain_name(Path(location).name) if source.kind == "local" else location,
            "revision": against.get("revision"),
            "files": against["files"],
        }
    held = plan.source.adopted.tokenizer if plan.source.adopted else None
    return {
        "adopted": {
            **plan.recognised.as_dict(),
            "against": compared or None,
            "tokenizer": None if held is None else plain_name(Path(held).name),
        }
    }


def _licence(plan: Plan, made: Made) -> str | None:
    return licences.stated(plan.chosen.variant.license, plan.source.kind, made.fetched.facts)


def _sampling(plan: Plan, checkpoint: Path) -> dict[str, float] | None:
    """The checkpoint's own sampling, the profile's over it."""
    own = sampling.of(Checkpoint.open(checkpoint).generation_config) or {}
    return {**own, **plan.profile.sampling} or None


def _chat(plan: Plan, made: Made) -> JsonObject:
    """What ends a turn and what the profile fixes: every export goes by it."""
    spoken = speech.of_folder(checkpoint_of(made.fetched), plan.profile)
    ends: list[JsonObject] = [
        {"id": number, "text": text}
        for number, text in zip(spoken.ends, spoken.end_texts, strict=True)
    ]
    return {
        "ends": ends,
        "notes": list(spoken.notes),
        "prefix_stable": spoken.prefix_stable,
        "profile": plan.profile.as_dict(),
    }


def _describe(
    plan: Plan,
    build_key: str,
    made: Made,
    entries: tuple[FileEntry, ...],
    losers: Sequence[JsonObject],
) -> JsonObject:
    chosen, variant = plan.chosen, plan.chosen.variant
    fetched, converted, measured = made.fetched, made.converted, made.measurement(plan)
    artifact_bytes = sum(entry.size for entry in entries if entry.path.startswith(f"{MODEL}/"))
    text = next((entry.sha256 for entry in entries if entry.path == "chat_template.jinja"), None)
    predicted = chosen.predicted()
    goal = limits(plan.workload, plan.target.device, plan.enforced)
    rows = verdicts(goal, artifact_bytes, measured, made.drafting_peak)
    generates = plan.shape.task == "generate"
    data: JsonObject = {
        "schema": manifest.SCHEMA,
        "name": plan.name,
        "version": plan.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "build_key": build_key,
        "target": plan.target.name,
        "device": plan.device.as_dict(),
        "workload": plan.workload.as_dict(),
        "variant": {
            "repo_id": variant.repo_id,
            "revision": fetched.facts.get("revision"),
            "license": _licence(plan, made),
            "spdx": spdx(_licence(plan, made)),
        },
        "source": _source(plan, fetched.facts),
        "recipe": {"id": chosen.recipe.id, **asdict(chosen.recipe)},
        "runtime": _runtime(plan, made),
        "files": [entry.as_dict() for entry in entries],
        "artifact_bytes": artifact_bytes,
        "offload": chosen.split.as_dict() if chosen.split else None,
        "predicted": predicted,
        "measured": measured.to_json() if measured else None,
        "not_measured": made.not_measured,
        "measurements": [],
        "quality": made.quality.to_json(),
        "verdicts": [verdict.to_json() for verdict in rows],
        "alternatives": list(losers),
        "why": {"sentence": plan.why(), "smaller": plan.smaller()},
        "build": _conversion(converted.facts),
        "tools": _tools(plan, converted.facts),
        "chat_template_sha256": text,
        "sampling": _sampling(plan, checkpoint_of(fetched)) if generates else None,
        "chat": _chat(plan, made) if generates else None,
        "retrieval": retrieval_of(plan, made),
        "modality": plan.shape.modality,
        "vision": vision_of(plan, made),
        "audio": audio_of(plan, made),
        **({"warm": made.warm.to_json()} if made.warm else {}),
        **({"speculation": made.speculation.to_json()} if made.speculation else {}),
    }
    return {
        **data,
        "content_sha256": content_sha256(data),
        "errors_percent": figures.errors_percent(
            measured, artifact_bytes, Predicted.from_json(predicted)
        ),
    }


def _source(plan: Plan, facts: JsonObject) -> JsonObject:
    """Where the weights came from; of a folder of the user's the name alone."""
    source = plan.source
    own = source.kind == "local" or source.adopted
    return {
        "kind": source.kind,
        "location": plain_name(Path(source.location).name) if own else source.location,
        "files": facts["files"],
        # What config.json says and the weights do not bear out.
        **({"notes": facts["notes"]} if facts.get("notes") else {}),
        **_endpoint(plan, facts),
        **_changed(facts),
        **_adopted(plan, facts),
    }


def _runtime(plan: Plan, made: Made) -> JsonObject:
    """The engine, how it was started here, and the oldest versions that read the artifact."""
    distributions = plan.runtime.distributions
    return {
        "name": plan.runtime.name,
        "version": plan.versions.get(distributions[0]) if distributions else None,
        "settings": made.start.settings() if made.start else None,
        "minimum": [row.to_json() for row in made.minimum(plan)],
    }


def _conversion(facts: JsonObject) -> JsonObject:
    """What converting took, and what it went by besides the recipe."""
    repacked = facts.get("repacked")
    return {
        "convert_seconds": facts["seconds"],
        "convert_peak_bytes": facts["peak_bytes"],
        "importance": facts.get("importance"),
        **({"repacked": repacked} if repacked else {}),
    }


def _tools(plan: Plan, facts: JsonObject) -> JsonObject:
    """The versions of all that took part, and the toolchain that the bytes depend on."""
    # Older entries of the cache do not say, and were converted on a machine like this one.
    toolchain = object_or_empty(facts, "toolchain") or {"architecture": platform.machine()}
    return {
        "qwen-pack": __version__,
        "python": platform.python_version(),
        **plan.versions,
        **toolchain,
    }
