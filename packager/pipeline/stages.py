"""The stages of a build: what a child process does in each, and the key under which the cache keeps
what it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packager import __version__, sources
from packager.catalog.licences import stated
from packager.device.identity import of_figures
from packager.device.this_machine import describe_machine, installation_id
from packager.digests import key_of
from packager.engine_check.outcome import Start
from packager.errors import PackError
from packager.hearing import Hears
from packager.json_values import (
    JsonDict,
    JsonObject,
    at,
    at_or_none,
    object_at,
    objects_at,
)
from packager.measure.benchmark import NEW_TOKENS, REPEATS
from packager.measure.benchmark import VERSION as SMOKE_VERSION
from packager.measure.noise import allowed_attempts
from packager.measure.pictures import VERSION as PICTURES_VERSION
from packager.measure.session_settings import image_limit, limit_of_artifact
from packager.measure.sounds import VERSION as SOUNDS_VERSION
from packager.package import manifest
from packager.package.floor import HasFloor
from packager.pipeline import climb, pictures, retrieval_stage
from packager.pipeline.cache import BuildCache, Entry
from packager.pipeline.fetched import leads_to_weights
from packager.pipeline.job import Job, checkpoint_of, environment
from packager.pipeline.speculation_stage import Verdict as Drafting
from packager.quality import VERSION as QUALITY_VERSION
from packager.records import Measurement, Quality
from packager.records.contents import Minimum, WarmStart
from packager.records.measurement import OnDevice
from packager.records.speculation import Speculation
from packager.runtime import Runtime, Sees
from packager.sources.adapters import inputs_of
from packager.sources.reread import SMALL, Evidence

if TYPE_CHECKING:
    from packager.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Made:
    """What the stages before the packaging left, the key of each stage's inputs, and what the
    quality gate found."""

    fetched: Entry
    converted: Entry
    measured: Entry
    keys: JsonObject
    quality: Quality
    start: Start | None = None
    """How the engine was started; None for what was made before engines were tried."""
    warm: WarmStart | None = None
    """What the state of a fixed prefix gains; None where none is kept."""
    drafting: Drafting | None = None
    """What drafted tokens cost and gain; None where that was not asked."""

    @property
    def speculation(self) -> Speculation | None:
        """The verdict on drafted tokens; None where it was not asked for."""
        return self.drafting.speculation if self.drafting else None

    @property
    def drafting_peak(self) -> int | None:
        """The most memory of a process that drafts tokens as the package does; None where it does
        not."""
        taken = self.speculation
        return taken.peak_memory_bytes if taken is not None and taken.pays else None

    @property
    def not_measured(self) -> str | None:
        """Why the artifact could not be run here; None where it was."""
        return at_or_none(self.measured.facts, "not_measured", str)

    def minimum(self, plan: Plan) -> tuple[Minimum, ...]:
        """The oldest engines that read the artifact; empty where the runtime does not know."""
        if not isinstance(plan.runtime, HasFloor):
            return ()
        built = self.converted.folder / "out"
        return plan.runtime.minimum(built, plan.shape, plan.chosen.recipe, self.converted.facts)

    def measurement(self, plan: Plan) -> Measurement | None:
        """The measurement with the place where it was taken; None where there is none."""
        if self.not_measured is not None:
            return None
        taken = Measurement.from_json(self.measured.facts)
        seen = of_figures(plan.place, plan.device, taken.runs_on)
        return taken.but(
            rung=self.start.name if self.start else None,
            place=OnDevice(on_device=seen.on_device, why=seen.why),
        )


def fetch(plan: Plan) -> Job:
    """The weights of the plan's source."""
    job, arguments = sources.job(plan.source, plan.shape)
    key = sources.cache_key(plan.source, plan.shape)
    return Job("fetch", job, arguments, None if key is None else key_of(key))


def convert(plan: Plan, fetched: Entry) -> Job:
    """The artifact of the plan's recipe. The bytes decide, not where they came from: the hub's copy
    of a folder is converted once."""
    recipe, origin = asdict(plan.chosen.recipe), _origin(plan, fetched)
    # Some runtimes write what they know of the origin into the model, and split it: nothing else
    # may convert again for that.
    more: JsonDict = {}
    if hasattr(plan.runtime, "with_additions") and plan.source.adopted is None:
        # The folder's name becomes the model's where nothing else says one.
        folder = Path(plan.source.location).name if plan.source.kind == "local" else None
        more = {"origin": origin, "max_file_bytes": plan.workload.max_file_bytes, "folder": folder}
    profile: JsonDict = {"profile": plan.profile.as_dict()} if plan.profile else {}
    if plan.heads:
        profile["heads"] = True
    if plan.shape.task != "generate":
        profile["task"] = plan.shape.task
    if plan.shape.modality != "text":
        profile["modality"] = plan.shape.modality
    profile |= limit_of_artifact(plan.runtime, plan.workload.max_image_tokens)
    key = key_of(
        {
            "files": inputs_of(fetched.facts),
            "recipe": recipe,
            "context": plan.workload.context,
            **more,
            **profile,
            "tools": {"qwen-pack": __version__, **plan.versions},
            "job": plan.runtime.build_job,
        }
    )
    added = {"imatrix": plan.additions.imatrix, "calibration": plan.additions.calibration}
    inputs: JsonDict = {
        "origin": origin,
        "checkpoint_key": key_of(inputs_of(fetched.facts)),
        **profile,
    }
    inputs |= {name: str(path.absolute()) for name, path in added.items() if path is not None}
    if plan.source.adopted is not None:
        paths = plan.source.adopted.files
        rows = objects_at(fetched.facts, "files")
        inputs["adopted"] = [{**row, "path": path} for path, row in zip(paths, rows, strict=True)]
    recipe["inputs"] = inputs
    arguments: JsonObject = {
        "checkpoint": str(checkpoint_of(fetched)),
        "recipe": recipe,
        "workload": plan.workload.as_dict(),
    }
    # However the engine is started, the same inputs give the same artifact: it is no part of the
    # key.
    return Job(
        "convert",
        plan.runtime.build_job,
        arguments,
        key,
        env=environment(plan),
        evidence=Evidence.of(checkpoint_of(fetched), fetched.facts),
        opened_by=plan.runtime.name,
        title=None if plan.source.adopted is None else "Take the model as it is",
    )


def _origin(plan: Plan, fetched: Entry) -> JsonObject:
    """Where the weights come from, for the model's own metadata; no path of this machine."""
    variant = plan.chosen.variant
    return {
        "kind": plan.source.kind,
        "repo_id": variant.repo_id,
        "revision": fetched.facts.get("revision"),
        "license": stated(variant.license, plan.source.kind, fetched.facts),
        "license_name": variant.license_name,
    }


def measure(plan: Plan, converted: Entry, artifact: Job) -> Job:
    """The smoke benchmark of what `artifact` left; its figures hold for this one machine."""
    settings: JsonObject = {
        "context": plan.workload.context,
        "kv": plan.chosen.recipe.kv,
        "threads": None,
        "gpu_layers": plan.gpu_layers,
    }
    out, prompt = converted.folder / "out", plan.workload.prompt
    if plan.shape.task == "generate":
        job = benchmark(plan.runtime.session, out, settings, prompt, plan.sustained_s)
        if plan.shape.vision is not None and pictures.has_encoder(plan.runtime, out):
            job = with_pictures(job, plan.runtime, plan.workload.max_image_tokens)
        if plan.shape.audio is not None:
            job = with_sound(job, plan.runtime, plan.shape.audio_seconds)
    else:
        session = retrieval_stage.session_of(plan.runtime)
        job = retrieval_stage.benchmark(session, out, settings, plan.shape.task, prompt)
    here = {"machine": describe_machine(), "installation": installation_id()}
    asked = {name: value for name, value in job.arguments.items() if name != "attempts"}
    started = plan.start.identity if plan.start else {}
    by: JsonObject = {"smoke": SMOKE_VERSION, **retrieval_stage.measured_by(plan.shape.task)}
    key = key_of({**asked, "artifact": artifact.key, **by, **here, **started})
    return replace(job, key=key, env=environment(plan), by_start=True)


def benchmark(
    session: str, artifact: Path, settings: JsonObject, prompt: int, sustained_s: float = 0
) -> Job:
    """The smoke benchmark of an artifact: with the workload's own prompt length, as far as the
    context of the settings holds it.

    `sustained_s` seconds of decoding without a pause come behind it.
    """
    context = at(settings, "context", int)
    new_tokens = min(NEW_TOKENS, max(2, context // 4))
    arguments: JsonObject = {
        "session": session,
        "artifact": str(artifact),
        "settings": settings,
        "prompt_tokens": max(1, min(prompt, context - new_tokens)),
        "new_tokens": new_tokens,
        "repeats": REPEATS,
        "thorough": True,
        "attempts": allowed_attempts(),
        "sustained_s": sustained_s,
    }
    return Job("measure", "packager.measure.benchmark:measure", arguments, needs_out=False)


def with_pictures(job: Job, runtime: Runtime, most: int | None) -> Job:
    """The smoke benchmark of an artifact that holds an image encoder: with figures of pictures, of
    `most` tokens each at most."""
    assert isinstance(runtime, Sees)
    settings = {**object_at(job.arguments, "settings"), **image_limit(most)}
    looking = {"most": most, "version": PICTURES_VERSION}
    session = runtime.vision_session
    return replace(
        job,
        arguments={**job.arguments, "session": session, "settings": settings, "pictures": looking},
    )


def with_sound(job: Job, runtime: Runtime, seconds: int, recorded: JsonObject | None = None) -> Job:
    """The smoke benchmark of an artifact that holds an audio encoder: with figures of sound of so
    many seconds; `recorded` are recordings whose words are known, and the texts around them."""
    assert isinstance(runtime, Hears)
    listening: JsonDict = {"seconds": seconds, "version": SOUNDS_VERSION, **(recorded or {})}
    asked: JsonDict = {"session": runtime.audio_session, "sounds": listening}
    return replace(job, arguments={**job.arguments, **asked})


def keys_of(artifact: Job, measurement: Job, measured: Entry) -> JsonObject:
    """What the package depends on of its stages: with these figures, not with earlier ones."""
    measured_at = measured.facts.get("measured_at")
    return {
        "convert": artifact.key,
        "measure": measurement.key,
        "measured_at": measured_at,
        "quality": QUALITY_VERSION,
    }


def package_key(plan: Plan, keys: JsonObject, losers: Sequence[JsonObject] = ()) -> str:
    """The key that a package keeps, by which the same build finds it again; `losers` are what it
    was compared with."""
    return key_of(
        {
            **keys,
            "plan": plan.as_dict(),
            "version": plan.version,
            **({"alternatives": list(losers)} if losers else {}),
        }
    )


def descriptions(fetched: Entry) -> Evidence:
    """What a package takes from the checkpoint beside its weights: licences, chat template,
    sampling."""
    return Evidence.of(checkpoint_of(fetched), fetched.facts, SMALL)


def is_kept(cache: BuildCache, job: Job) -> bool:
    """Whether the cache holds a stage, by its record and the names and sizes of its files."""
    return job.key is not None and cache.look_up(job.stage, job.key) is not None


_since: ContextVar[str | None] = ContextVar("since", default=None)


@contextmanager
def taken_since(began: str) -> Iterator[None]:
    """Within the block a noisy measurement counts that was taken at or after `began` (a time as
    records have it): work that goes on in several pieces measures once."""
    token = _since.set(began)
    try:
        yield
    finally:
        _since.reset(token)


def look_up(cache: BuildCache, job: Job) -> Entry | None:
    """What the stage left when it ran before; None when it must run.

    Also because its files lay outside our cache and are gone or are another folder's, or because it
    measured on a busy machine, which may be idle now (unless a single attempt is all that is
    wanted, or it belongs to the work that goes on, see `taken_since`).
    """
    entry = cache.look_up(job.stage, job.key) if job.key else None
    again = entry is not None and bool(entry.facts.get("noisy")) and allowed_attempts() > 1
    if again and entry is not None and _since.get() is not None:
        again = str(entry.facts.get("measured_at")) < str(_since.get())
    elsewhere = entry is not None and job.stage == "fetch" and not leads_to_weights(job, entry)
    if entry is not None and (again or elsewhere):
        cache.drop(entry)
        return None
    return entry


def cached(plan: Plan, cache: BuildCache) -> frozenset[str]:
    """Names of the stages of this build that need not run again, as far as that is known before the
    first of them runs.

    "package" stands for a package at the plan's own place that would be written again as it is.
    """
    names: list[str] = []
    with suppress(PackError, OSError):
        fetched = look_up(cache, fetch(plan))
        if fetched is not None:
            names.append("fetch")
            artifact = convert(plan, fetched)
            converted = look_up(cache, artifact)
            if converted is not None:
                names.append("convert")
                plan = replace(plan, start=climb.known(plan.runtime, str(artifact.key)))
                measurement = measure(plan, converted, artifact)
                measured = look_up(cache, measurement)
                keys = keys_of(artifact, measurement, measured) if measured else {}
                if measured and manifest.read(plan.out).contents.build_key == package_key(
                    plan, keys
                ):
                    names.append("package")
    return frozenset(names)
