"""Measure a finished package again, on this machine, beside what its manifest says."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from packager.device.identity import CLAIMED, UNKNOWN, Here, Identity, Place, of_figures, place
from packager.engines import missing_engine
from packager.errors import NotHere, usage
from packager.events import Event
from packager.json_values import (
    JsonObject,
    WrongKind,
    at,
    at_or_none,
    list_at,
    object_at,
    object_or_empty,
)
from packager.locks import alone_in
from packager.measure.gauges.clock import celsius
from packager.measure.session_settings import most_of, settings_of
from packager.package import adapters, manifest
from packager.package.manifest import Manifest
from packager.package.package import MODEL
from packager.parts import refuse_half
from packager.pipeline import pictures, retrieval_stage, sounds
from packager.pipeline.cache import BuildCache
from packager.pipeline.cooling import cool
from packager.pipeline.intact import artifact_key, intact
from packager.pipeline.run import run_alone
from packager.pipeline.stages import benchmark, with_pictures, with_sound
from packager.records import Contents, Measurement, Verdict
from packager.records.figures import MEASURED, Figure
from packager.records.measurement import OnDevice
from packager.report.budgets import verdicts
from packager.report.figures import value_of
from packager.runtime import Runtime
from packager.scratch import temporary_folder


def settings_with(
    found: Manifest, package: Path, runtime: Runtime, added: Sequence[Path]
) -> JsonObject:
    """`settings_of` with the adapter packages in `added`.

    Raises PackError: exit code 2 for what is no adapter or twice the same, or where the engine
    takes none; 6 for one that has changed, is not safe to open, or belongs to another package.
    """
    settings = settings_of(found)
    if not added:
        return settings
    refuse_without_adapters(runtime, found)
    known = [(path, intact(path)) for path in added]
    for path, adapter in known:
        adapters.refuse_other_base(found, package, adapter, path)
    if len({path.resolve() for path in added}) < len(added):
        raise usage("--adapter names the same adapter twice.", "Name each adapter once.")
    return {**settings, "adapters": adapters.rows(known)}


def refuse_without_adapters(runtime: Runtime, base: Manifest | None = None) -> adapters.Adapts:
    """The runtime as one that adds adapters. Raises PackError (usage) for one that does not, and
    for a base whose artifact takes none."""
    refuse_half(runtime, adapters.Adapts)
    if not isinstance(runtime, adapters.Adapts):
        raise usage(
            f"{runtime.name} takes no adapters.",
            "Merge the adapter with --lora, or take llama.cpp, OpenVINO or ONNX Runtime.",
        )
    if base is not None and isinstance(runtime, adapters.TakesSome):
        settings = object_or_empty(object_or_empty(base.data, "recipe"), "settings")
        why = runtime.adapter_obstacle(settings, base.contents.modality)
        if why is not None:
            raise usage(
                f"{base.name} takes no adapter: {why}.",
                "Or merge the adapter with --lora.",
            )
    return runtime


def whole(package: Path, runtime: Runtime) -> Manifest:
    """The manifest of a package that can be run here. What a file manager left in it is no
    obstacle.

    Raises PackError: exit code 2 when the engine is not installed, 6 when a file is not what the
    manifest says, or would make an engine do more than answer.
    """
    absent = missing_engine(runtime)
    if absent is not None:
        raise absent
    return intact(package)


def run(
    package: Path,
    runtime: Runtime,
    here: Here | None = None,
    claimed: bool = False,
    sustained_s: float = 0,
    cool_c: float | None = None,
    added: Sequence[Path] = (),
    transcripts: Path | None = None,
) -> Generator[Event, None, Measurement]:
    """Yield the events of the measurement and return its figures with their place; the package is
    not changed.

    `here` is this machine, compared with the device in the manifest; `claimed` says that it is the
    device, whatever it calls itself. With `sustained_s` it decodes for so many seconds more and
    shows whether the machine throttles; with `cool_c` it waits until the processor has no more
    degrees Celsius. `added` are adapter packages, `transcripts` a list of recordings whose word
    errors are counted. Raises NotHere where the package is made for what
    this machine does not have.
    """
    packaged = whole(package, runtime)
    settings = settings_with(packaged, package, runtime, added)
    if cool_c is not None:
        yield from cool(celsius, cool_c)
    workload = packaged.contents.workload
    prompt = (workload.prompt if workload else None) or at(settings, "context", int) // 2
    task = packaged.contents.task
    if task != "generate":
        job = retrieval_stage.benchmark(
            retrieval_stage.session_of(runtime), package / MODEL, settings, task, prompt
        )
    else:
        job = benchmark(runtime.session, package / MODEL, settings, prompt, sustained_s)
        if pictures.sees(runtime, packaged):
            job = with_pictures(job, runtime, most_of(packaged))
    with ExitStack() as held:
        if packaged.contents.modality == "audio":
            job = with_sound(job, runtime, sounds.most_of(packaged))
        if transcripts is not None:
            recorded = _recorded(package, runtime, packaged, transcripts, held)
            job = with_sound(job, runtime, sounds.most_of(packaged), recorded)
        result = yield from run_alone(
            job, BuildCache().log("bench"), runtime, artifact_key(packaged)
        )
    if "not_measured" in result.value:
        raise NotHere(
            at(result.value, "not_measured", str), at_or_none(result.value, "hint", str) or ""
        )
    taken = Measurement.from_json(result.value)
    place = of_package(packaged.data, here, claimed, taken.runs_on)
    return taken.but(place=OnDevice(on_device=place.on_device, why=place.why))


def _recorded(
    package: Path, runtime: Runtime, found: Manifest, transcripts: Path, held: ExitStack
) -> JsonObject:
    """The recordings of a list, decoded as long as `held` is open, and the texts around them.
    Raises PackError (usage) for a package that takes no sound."""
    sounds.session_of(runtime, found)
    if sounds.asked(found):
        raise usage(
            f"The package {found.name} answers questions about sound, so that its words are not "
            "those of a recording.",
            "Count word errors of a package that writes down what is said, such as Qwen3-ASR; "
            "`qwen-pack behave` takes recordings with a question and checks.",
        )
    texts = sounds.texts_of(package, "")
    folder = Path(held.enter_context(temporary_folder()))
    return {"texts": texts, "recordings": sounds.recordings_of(transcripts, folder)}


def of_package(data: JsonObject, here: Here | None, claimed: bool, runs_on: str) -> Place:
    """Where figures were taken, as seen from the device in a manifest."""
    if claimed:
        return CLAIMED
    try:
        device = Identity.from_dict(object_at(data, "device"))
    except WrongKind:
        return Place(False, "the manifest does not say what the device is")
    return UNKNOWN if here is None else of_figures(place(device, here), device, runs_on)


def judged(contents: Contents, measured: Measurement) -> list[Verdict]:
    """The manifest's budgets against new figures; as they are in the manifest where those are not
    of the device."""
    rows = list(contents.verdicts)
    return verdicts(rows, contents.artifact_bytes or 0, measured) if measured.on_device else rows


def save(package: Path, measured: Measurement) -> None:
    """Add a measurement to the package's manifest, beside the ones that are there; one of the
    device judges the budgets."""
    with alone_in(package):
        packaged = manifest.read(package)
        data = dict(packaged.data)
        if data.get("verdicts"):
            found = judged(packaged.contents, measured)
            data["verdicts"] = [verdict.to_json() for verdict in found]
        data["measurements"] = [*list_at(data, "measurements"), measured.to_json()]
        manifest.write(package, data)


@dataclass(frozen=True, slots=True)
class Again:
    """One figure of the manifest and now, None where it is not known."""

    figure: Figure
    manifest: float | None
    now: float | None

    @property
    def ratio(self) -> float | None:
        """Now as a multiple of the manifest."""
        return self.now / self.manifest if self.manifest and self.now is not None else None

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "figure": self.figure.name,
            "manifest": self.manifest,
            "now": self.now,
            "ratio": self.ratio,
        }


def beside(before: Measurement | None, now: Measurement) -> list[Again]:
    """One row per figure that is measured again."""
    return [
        Again(figure, value_of(figure.name, before, None), value_of(figure.name, now, None))
        for figure in MEASURED
        if figure.again
    ]
