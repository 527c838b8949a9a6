"""Build an adapter package: the adapter alone, converted for the engine of one finished package and
bound to its content.

What it is worth is measured on that package: its quantized weights with the adapter, against the
adapter merged into the unquantized ones.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from packager import __version__, papers, sources
from packager.digests import key_of
from packager.engines import installed
from packager.errors import bad_input, usage
from packager.events import Event, StageFinished
from packager.files import copy_hashed, sha256, write_atomically
from packager.inspection import refuse_unsafe
from packager.json_values import JsonDict, JsonObject, at, object_at, object_or_empty, objects_at
from packager.measure.session_settings import settings_of
from packager.names import plain_name
from packager.package import adapters as bound
from packager.package import manifest
from packager.package.content import content_sha256
from packager.package.manifest import FileEntry, Manifest
from packager.package.package import MODEL, Package
from packager.papers import licence
from packager.pipeline import rebuild_differences
from packager.pipeline.bench import refuse_without_adapters, whole
from packager.pipeline.cache import BuildCache
from packager.pipeline.intact import artifact_key
from packager.pipeline.job import Job
from packager.pipeline.package_readme import adapter_readme
from packager.pipeline.packaging import replacing
from packager.pipeline.rebuild import source_of
from packager.pipeline.run import run_alone
from packager.pipeline.stage_run import announce
from packager.pipeline.underway import underway
from packager.quality import verdict
from packager.quality.gate import Gate
from packager.quality.thresholds import limits
from packager.recipe import split_id
from packager.records import Quality
from packager.runtime import Runtime
from packager.shape import Shape
from packager.sources import Source, adapters
from packager.sources.reread import Evidence

_KEPT = ("target", "device", "workload", "variant", "recipe", "sampling", "modality")
"""Fields of the base's manifest that stand for the adapter as well."""
_NOT_MEASURED = "an adapter is measured with its base: qwen-pack bench BASE --adapter ADAPTER"


@dataclass(frozen=True)
class AdapterPlan:
    """What will be built: `source` are the unquantized weights of the package `base` with the one
    adapter, of the shape `shape`."""

    base: Path
    known: Manifest
    runtime: Runtime
    source: Source
    shape: Shape
    out: Path
    gate: Gate
    version: str | None = None

    @property
    def name(self) -> str:
        """The package's name: the base's, and the adapter's."""
        own = self.source.adapters[0].location.rpartition("/")[2]
        return f"{self.known.name}-{plain_name(own)}-adapter".lower()


def make_plan(
    base: Path,
    adapter: str,
    runtime: Runtime,
    *,
    weights: Path | None = None,
    out: Path | None = None,
    gate: Gate | None = None,
    version: str | None = None,
    offline: bool = False,
) -> AdapterPlan:
    """Check the base and find the adapter and the weights of the base.

    Raises PackError: exit code 2 for a base that takes no adapter, weights that must be named, an
    engine that is not here; 5 where the hub does not answer; 6 for a package that is not what its
    manifest says, and for an adapter that does not belong to its model.
    """
    refuse_without_adapters(runtime)
    known = whole(base, runtime)
    _refuse_base(known)
    refuse_without_adapters(runtime, known)
    source, shape = source_of(known, weights)
    (given,) = adapters.parse([adapter], offline, "--adapter")
    adapters.adapted(shape, known.contents.variant.repo_id, [given])
    source = replace(source, adapters=(given,), base=shape, offline=offline)
    plan = AdapterPlan(base, known, runtime, source, shape, Path(), gate or Gate(), version)
    return replace(plan, out=(out or Path(plan.name)).absolute())


def _refuse_base(known: Manifest) -> None:
    contents = known.contents
    bound.refuse_alone(known)
    if contents.task != "generate":
        why = "it gives no text"
    elif contents.source.dummy:
        why = "its weights are random"
    elif contents.source.adopted is not None:
        why = "somebody else converted it, and from which weights is not proved"
    elif contents.source.adapters:
        why = "an adapter is merged into it already"
    else:
        return
    raise usage(
        f"{known.name} cannot be the base of an adapter: {why}.",
        "Build the base from real weights, without --lora.",
    )


def run(plan: AdapterPlan, cache: BuildCache | None = None) -> Generator[Event, None, Package]:
    """Build it; yield events and return the finished package. Nothing is left behind where a stage
    fails, and nothing goes into the cache."""
    with underway(plan.out), (cache or BuildCache()).work_folder() as work:
        fetched = yield from _fetched(plan, work)
        checkpoint = Path(at(fetched, "folder", str))
        made = yield from _converted(plan, fetched, checkpoint, work)
        quality = yield from _quality(plan, checkpoint, work)
        yield from announce("package")
        package = _write(plan, fetched, made, quality, checkpoint, work / "out")
        size = sum(entry.size for entry in package.manifest.files)
        yield StageFinished("package", 0.0, False, "", {"package": str(plan.out), "bytes": size})
    return package


def _fetched(plan: AdapterPlan, work: Path) -> Generator[Event, None, JsonObject]:
    """The weights of the base with the adapter. Raises PackError (exit code 6) for weights that the
    base was not built from."""
    job, arguments = sources.job(plan.source, plan.shape)
    arguments = {**arguments, "out": str(work / "checkpoint")}
    facts = (yield from run_alone(Job("fetch", job, arguments), work / "log")).value
    recorded = plan.known.contents.source.files
    different = rebuild_differences.of_sources(recorded, objects_at(facts, "files"))
    if different:
        first = different[0]
        raise bad_input(
            f"{plan.known.name} was built from other weights than these: {first.path} "
            f"{first.message}.",
            "Name the checkpoint that the base was built from with --weights.",
        )
    return facts


def _converted(
    plan: AdapterPlan, fetched: JsonObject, checkpoint: Path, work: Path
) -> Generator[Event, None, JsonObject]:
    runtime: bound.Adapts = refuse_without_adapters(plan.runtime)
    arguments = {"checkpoint": str(checkpoint), "out": str(work / "out")}
    evidence = Evidence.of(checkpoint, fetched)
    job = Job("convert", runtime.adapter_job, arguments, evidence=evidence)
    return (yield from run_alone(job, work / "log")).value


def _quality(plan: AdapterPlan, checkpoint: Path, work: Path) -> Generator[Event, None, Quality]:
    """The base with the adapter against the merge. Raises PackError (exit code 4) for more than the
    base's recipe may lose."""
    gate, known = plan.gate, plan.known
    read: JsonDict = {
        "checkpoint": str(checkpoint),
        "text": None if gate.file is None else str(gate.file.absolute()),
        "tokens": gate.tokens_for(plan.shape.parameters()),
        "context": known.contents.context,
    }
    reference = work / "reference"
    job = "packager.quality.job:reference"
    computed = yield from run_alone(
        Job("quality", job, {**read, "out": str(reference)}), work / "log"
    )
    why_not = computed.value.get("not_possible") or computed.value.get("says_nothing")
    file = work / "out" / refuse_without_adapters(plan.runtime).adapter_file
    settings: JsonDict = {
        **settings_of(known),
        "adapters": [{"path": str(file), "scale": 1.0}],
    }
    arguments: JsonDict = {
        **read,
        "session": plan.runtime.session,
        "artifact": str((plan.base / MODEL).absolute()),
        "settings": settings,
        "reference": None if why_not else str(reference),
        "stops": True,
        "profile": object_or_empty(object_or_empty(known.data, "chat"), "profile") or None,
    }
    compared = Job("quality", "packager.quality.job:compare", arguments)
    result = yield from run_alone(compared, work / "log", plan.runtime, artifact_key(known))
    _, weights, kv = split_id(known.contents.recipe.id)
    text = {"name": gate.text.name, "sha256": gate.text.sha256}
    quality = verdict.judged(
        {**result.value, "text": text},
        limits(plan.runtime.recipe(weights, kv).grade),
        str(why_not) if why_not else None,
        gate.allow_loss,
    )
    verdict.check(quality)
    return quality


def _write(
    plan: AdapterPlan,
    fetched: JsonObject,
    made: JsonObject,
    quality: Quality,
    checkpoint: Path,
    converted: Path,
) -> Package:
    with replacing(plan.out) as folder:
        name = refuse_without_adapters(plan.runtime).adapter_file
        (folder / MODEL).mkdir()
        for _ in copy_hashed(converted / name, folder / MODEL / name):
            pass
        variant = object_at(plan.known.data, "variant")
        recorded = adapters.recorded(fetched)
        locations = [at(row, "location", str) for row in recorded]
        written = licence.write(
            folder, checkpoint, variant, "", dummy=False, adapters=locations, apart=True
        )
        write_atomically(folder / "README.md", _readme(plan, quality, name).encode())
        names = [f"{MODEL}/{name}", *written, "README.md"]
        entries = [
            FileEntry(path, (folder / path).stat().st_size, sha256(folder / path)) for path in names
        ]
        manifest.write(
            folder, papers.added(folder, _described(plan, fetched, made, quality, entries))
        )
        known = manifest.read(folder)
        refuse_unsafe(folder, known, str(plan.out))
    return Package(plan.out, known)


def _described(
    plan: AdapterPlan,
    fetched: JsonObject,
    made: JsonObject,
    quality: Quality,
    entries: Sequence[FileEntry],
) -> JsonObject:
    base = bound.base_of(plan.known)
    data: JsonDict = {
        "schema": manifest.SCHEMA,
        "name": plan.name,
        "version": plan.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: plan.known.data.get(key) for key in _KEPT},
        "source": {
            **{
                key: value
                for key, value in object_at(plan.known.data, "source").items()
                if key in ("kind", "location", "files", "notes", "quantized")
            },
            "adapters": adapters.recorded(fetched),
        },
        "adapter": {
            "base": base.to_json(),
            "file": entries[0].path,
            "rank": made["rank"],
            "matrices": made["matrices"],
        },
        "runtime": {**object_at(plan.known.data, "runtime"), "settings": None},
        "files": [entry.as_dict() for entry in entries],
        "artifact_bytes": entries[0].size,
        "not_measured": _NOT_MEASURED,
        "measurements": [],
        "quality": quality.to_json(),
        "verdicts": [],
        "why": {"sentence": f"It belongs to {base.name}.", "smaller": []},
        "tools": {
            "qwen-pack": __version__,
            "python": platform.python_version(),
            **{name: installed(name) for name in plan.runtime.distributions},
        },
        "chat": plan.known.data.get("chat"),
    }
    digest = content_sha256(data)
    build_key = key_of(
        {
            "content": digest,
            "gate": plan.gate.as_dict(),
        }
    )
    return {**data, "build_key": build_key, "content_sha256": digest}


def _readme(plan: AdapterPlan, quality: Quality, name: str) -> str:
    runtime = refuse_without_adapters(plan.runtime)
    location = plan.source.adapters[0].location
    return adapter_readme(plan.name, location, plan.known, runtime, quality, f"{MODEL}/{name}")
