"""Build the artifact of a package again, from what its manifest says of source and recipe, and
compare.

Nothing is taken from the build cache and nothing put there, but importances that are collected. The
package is only read.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from packager import catalog, sources
from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint
from packager.digests import key_of
from packager.engines import missing_engine
from packager.errors import no_room, usage
from packager.events import Event
from packager.files import free_bytes, regular_files, sha256
from packager.json_values import (
    JsonDict,
    JsonObject,
    at,
    at_or_none,
    object_at,
    object_or_empty,
    objects_at,
)
from packager.measure.session_settings import limit_of_artifact, most_of
from packager.package import manifest
from packager.package.content import MODEL_FOLDER, TEMPLATE
from packager.package.manifest import FileEntry, Manifest
from packager.package.verify import Finding
from packager.papers import licence
from packager.pipeline import rebuild_differences
from packager.pipeline.cache import BuildCache
from packager.pipeline.job import Job
from packager.pipeline.run import run_alone
from packager.plan.additions import Additions, applied
from packager.recipe import GROUP, REPACK, split_id
from packager.runtime import Runtime
from packager.shape import Shape, heads
from packager.sources import Source, adapters, hub_variant
from packager.sources.adapters import AdapterSource, inputs_of
from packager.sources.reread import Evidence
from packager.units import human_bytes


@dataclass(frozen=True)
class Rebuilt:
    """Every difference between a package and what its inputs give here, and the tools that are
    another version here."""

    findings: tuple[Finding, ...]
    tools: dict[str, tuple[str | None, str | None]]
    """Distribution -> version in the manifest, version here."""
    toolchain: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What the bytes of quantized weights depend on beside versions and differs: in the manifest,
    here."""

    @property
    def undecided(self) -> bool:
        """Whether all that differs are bytes that another toolchain rounds in another way: the
        package may be right."""
        return bool(self.findings) and all(finding.kind == "toolchain" for finding in self.findings)

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "tools": {
                name: {"manifest": then, "here": now} for name, (then, now) in self.tools.items()
            },
            "toolchain": {
                name: {"manifest": then, "here": now}
                for name, (then, now) in self.toolchain.items()
            },
        }


def rebuild(
    package: Path,
    runtimes: Sequence[Runtime],
    weights: Path | None = None,
    additions: Additions | None = None,
    cache: BuildCache | None = None,
    lora: Sequence[str] = (),
) -> Generator[Event, None, Rebuilt]:
    """Fetch and convert again in a temporary folder; yield events, return what differs.

    `weights` is the checkpoint's folder; without it the weights come from where they came from.
    `additions` are the files that the build was given, `lora` its adapters in their order, which
    come from the hub again unless they are named; types of single tensors stand in the manifest.
    Raises PackError: 2 where the runtime, its engine, the weights or such a file are not
    here; 5 where the hub does not answer; 7 where disk does not suffice.
    """
    known = manifest.read(package)
    _refuse_what_is_not_built(known)
    recorded = object_at(known.data, "recipe")
    added = _additions(recorded, additions or Additions())
    runtime = _runtime(known, runtimes, added)
    source, shape = source_of(known, weights)
    source = replace(source, adapters=_adapters(known, lora))
    _, name, kv = split_id(known.contents.recipe.id)
    recipe = runtime.recipe(name, kv)
    problem = missing_engine(runtime, runtime.tools(shape, recipe))
    if problem:
        raise problem
    tools = rebuild_differences.of_tools(known)
    fields = json.loads(json.dumps(asdict(recipe)))
    other = sorted(
        key for key, value in fields.items() if key != "summary" and recorded.get(key) != value
    )
    if other:
        return Rebuilt(
            (Finding(recipe.id, "recipe", f"has other {other[0]} in this version of qwen-pack"),),
            tools,
        )
    with _folder(
        cache or BuildCache(), source, shape, runtime.build_needs(shape, recipe).disk
    ) as work:
        fetch, arguments = sources.job(source, shape)
        log = work / "log"
        fetched = (
            yield from run_alone(
                Job("fetch", fetch, {**arguments, "out": str(work / "checkpoint")}), log
            )
        ).value
        different = [
            *rebuild_differences.of_sources(
                known.contents.source.files, objects_at(fetched, "files")
            ),
            *_other_adapters(known, fetched),
        ]
        if different:
            return Rebuilt(tuple(different), tools)
        checkpoint = _called(Path(at(fetched, "folder", str)), known, work)
        inputs = _inputs(known, runtime, fetched, added)
        job = Job(
            "convert",
            runtime.build_job,
            {
                "checkpoint": str(checkpoint),
                "recipe": {**fields, "inputs": inputs},
                "workload": object_or_empty(known.data, "workload"),
                "out": str(work / "out"),
            },
            evidence=Evidence.of(checkpoint, fetched),
        )
        built = yield from run_alone(job, log, runtime, key_of(inputs["checkpoint_key"]))
        toolchain = rebuild_differences.of_toolchain(known, built.value)
        findings = rebuild_differences.of_files(
            known, _made(known, checkpoint, work), another=bool(toolchain)
        )
        return Rebuilt(tuple(findings), tools, toolchain)


def _refuse_what_is_not_built(known: Manifest) -> None:
    """Raises PackError (usage) for a package whose model was not converted here."""
    if known.contents.source.adopted is not None:
        raise usage(
            f"{known.name} cannot be built again: its model was converted by somebody else and "
            "taken as it came.",
            "`qwen-pack attest` compares it with a checkpoint, tensor by tensor.",
        )
    if known.contents.adapter is not None:
        raise usage(
            f"{known.name} is an adapter, which --rebuild does not convert again.",
            "Build it again with `qwen-pack build --adapter DIR --base PACKAGE`, and compare "
            "the content_sha256 of both.",
        )


def _inputs(known: Manifest, runtime: Runtime, fetched: JsonObject, added: Additions) -> JsonDict:
    """What a conversion goes by besides the recipe, as the build had it."""
    contents, profile = known.contents, _profile(known)
    inputs: JsonDict = {"origin": _origin(known), "checkpoint_key": key_of(inputs_of(fetched))}
    inputs |= {"profile": profile.as_dict()} if profile else {}
    inputs |= {"modality": contents.modality} if contents.modality != "text" else {}
    inputs |= {"heads": True} if _heads(known) else {}
    inputs |= {"task": contents.task} if contents.task != "generate" else {}
    inputs |= limit_of_artifact(runtime, most_of(known))
    files = {"imatrix": added.imatrix, "calibration": added.calibration}
    return inputs | {name: str(path.absolute()) for name, path in files.items() if path is not None}


def _additions(recorded: JsonObject, given: Additions) -> Additions:
    """What the build was given beside the recipe. Raises PackError (usage) where a file is missing,
    or too many."""
    settings = object_or_empty(recorded, "settings")
    for name in ("imatrix", "calibration"):
        facts, file = object_or_empty(settings, name), getattr(given, name)
        if facts and file is None:
            raise usage(
                f"The build was given --{name} {str(facts.get('file'))!r}.",
                f"Name that file with --{name}.",
            )
        if file is not None and not facts:
            raise usage(f"The build was given no --{name}.", "Leave it out.")
    return Additions(
        given.imatrix,
        given.calibration,
        _tensor_types(settings),
        repack=settings.get(REPACK) is True,
        group=at_or_none(settings, GROUP, int),
        adapter_inputs=settings.get("adapter_inputs") is True,
    )


def _tensor_types(settings: JsonObject) -> dict[str, str]:
    """The types of single tensors that the build was given, by pattern."""
    types = object_or_empty(settings, "tensor_types")
    return {pattern: at(types, pattern, str) for pattern in types}


def _runtime(known: Manifest, runtimes: Sequence[Runtime], additions: Additions) -> Runtime:
    name = known.contents.runtime.name
    for runtime in runtimes:
        if runtime.name == name:
            return applied([runtime], additions, f"{runtime.prefix}:any")[0]
    raise usage(
        f"{known.name} was built with the runtime {name!r}, which is not known here.",
        "Install the plug-in that brings it.",
    )


def source_of(known: Manifest, weights: Path | None) -> tuple[Source, Shape]:
    """Where the weights come from this time, and the shape they should have. Raises PackError
    (usage) where the user must say it."""
    repo_id, kind = known.contents.variant.repo_id, known.contents.source.kind
    if weights is not None:
        source = sources.parse(str(weights), repo_id)
        return source, _shape_of(Checkpoint.open(Path(source.location)), known)
    if kind == "local":
        folder = known.contents.source.location
        raise usage(
            f"The weights came from a folder called {folder!r}.", "Name that folder with --weights."
        )
    revision = known.contents.variant.revision
    by_name = partial(hub_variant.find, revision=revision) if kind == "hub" else catalog.find
    variant = by_name(repo_id)
    shape = variant.shape
    if shape is not None and variant.tower is not None and known.contents.modality == "vision":
        # How large pictures may be changes nothing of what is fetched.
        shape = shape.seeing(variant.tower, 0)
    if shape is not None and variant.audio_tower and known.contents.modality == "audio":
        shape = shape.hearing(variant.audio_tower, 0)
    if shape is not None and known.contents.task != shape.task:
        shape = shape.for_task(known.contents.task)
    if shape is not None and _heads(known):
        shape = replace(shape, draft_layers=heads.LAYERS)
    if shape is None:
        raise usage(
            f"The shape of {repo_id} is not known here.",
            "Name a folder with the checkpoint with --weights.",
        )
    if kind == "dummy":
        return sources.parse("dummy", repo_id), shape
    return sources.parse("modelscope" if kind == "modelscope" else "hub", repo_id, revision), shape


def _shape_of(checkpoint: Checkpoint, known: Manifest) -> Shape:
    """The shape of a folder, with the encoder that the package was built with."""
    # How large pictures may be, and how long sounds, changes nothing of what is read.
    if known.contents.modality == "vision":
        return checkpoint.shape.seeing(checkpoint.vision().tower, 0)
    if known.contents.modality == "audio":
        return checkpoint.shape.hearing(checkpoint.audio().tower, 0)
    return checkpoint.shape


def _heads(known: Manifest) -> bool:
    """Whether the model was built with its heads for multi-token prediction."""
    speculation = known.contents.speculation
    return speculation is not None and speculation.how == "mtp" and bool(speculation.pays)


def _adapters(known: Manifest, lora: Sequence[str]) -> tuple[AdapterSource, ...]:
    """The adapters of the build. Raises PackError (usage) where one is missing, or too many."""
    recorded = known.contents.source.adapters
    if len(lora) not in (0, len(recorded)):
        count = len(recorded) or "no"
        raise usage(
            f"The build was given {count} --lora, and {len(lora)} are named.",
            "Name each with --lora, in the order of the build.",
        )
    for row in recorded:
        if not lora and not (row.repo_id and row.revision):
            raise usage(
                f"The adapter came from a folder called {row.location!r}.",
                "Name that folder with --lora.",
            )
    specs = lora or [f"{row.repo_id}@{row.revision}" for row in recorded]
    named = adapters.parse(specs)
    return tuple(
        replace(adapter, scale=row.scale) for adapter, row in zip(named, recorded, strict=True)
    )


def _other_adapters(known: Manifest, fetched: JsonObject) -> Iterator[Finding]:
    """Files of the adapters that are not those of the build."""
    rows = objects_at(fetched, "adapters")
    for before, now in zip(known.contents.source.adapters, rows, strict=True):
        for finding in rebuild_differences.of_sources(before.files, objects_at(now, "files")):
            yield replace(finding, path=f"{before.location}/{finding.path}")


def _profile(known: Manifest) -> Profile:
    return Profile.from_dict(object_or_empty(object_or_empty(known.data, "chat"), "profile"))


def _origin(known: Manifest) -> JsonObject:
    """What the build knew of the origin, see stages.convert; the catalogue has what the manifest
    has not."""
    variant = known.contents.variant
    listed = next((row for row in catalog.load() if row.repo_id == variant.repo_id), None)
    return {
        "kind": known.contents.source.kind,
        "repo_id": variant.repo_id,
        "revision": variant.revision,
        "license": variant.license,
        "license_name": listed.license_name if listed else None,
    }


@contextmanager
def _folder(cache: BuildCache, source: Source, shape: Shape, artifact: int) -> Iterator[Path]:
    """A temporary folder with room for weights and artifact."""
    needed = sources.bytes_needed(source, shape) + artifact
    free = free_bytes(cache.root)
    if free < needed:
        raise no_room(
            f"The rebuild needs {human_bytes(needed)} of disk below {cache.root} and "
            f"{human_bytes(free)} are free.",
            "Free some space, or choose another place with QWEN_PACK_CACHE.",
        )
    with cache.work_folder() as work:
        yield work


def _called(checkpoint: Path, known: Manifest, work: Path) -> Path:
    """The checkpoint under the name that its folder had: where nothing else names a model, that
    does."""
    name = str(known.contents.source.location or "")
    if (
        known.contents.source.kind != "local"
        or "/" in name
        or not manifest.safe_path(name)
        or name == checkpoint.name
    ):
        return checkpoint
    link = work / "named" / name
    link.parent.mkdir()
    link.symlink_to(checkpoint.absolute(), target_is_directory=True)
    return link


def _made(known: Manifest, checkpoint: Path, work: Path) -> dict[str, FileEntry]:
    """The files that the inputs give now: model, chat template, licence and notice."""
    made = {
        f"{MODEL_FOLDER}{path.relative_to(work / 'out').as_posix()}": path
        for path in regular_files(work / "out")
    }
    papers = work / "papers"
    papers.mkdir()
    variant = {
        "repo_id": known.contents.variant.repo_id,
        "license": known.contents.variant.license,
    }
    licence.write(
        papers,
        checkpoint,
        variant,
        known.contents.recipe.id,
        dummy=known.contents.source.dummy,
        adapters=[row.location for row in known.contents.source.adapters],
    )
    # A package of vectors or scores renders no chats, and has no template.
    chats = known.contents.task == "generate"
    text = speech.of_folder(checkpoint, _profile(known)).template if chats else None
    if text is not None:
        (papers / TEMPLATE).write_bytes(text.encode())
    made |= {path.name: path for path in regular_files(papers)}
    return {name: FileEntry(name, path.stat().st_size, sha256(path)) for name, path in made.items()}
