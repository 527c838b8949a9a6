"""What drafted tokens cost and gain with what was built, for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.digests import key_of
from packager.errors import PackError, usage
from packager.json_values import JsonObject
from packager.measure.speculation import NGRAM, VERSION, WIDTHS, way
from packager.package.manifest import FileEntry
from packager.package.package import DRAFT, MODEL
from packager.parts import refusal
from packager.pipeline.cache import Entry
from packager.pipeline.intact import artifact_key, intact
from packager.pipeline.job import Job
from packager.pipeline.measured_job import measured_job
from packager.plan.drafting import with_drafting, with_heads
from packager.quality.text import continued
from packager.records.speculation import Draft, OtherWay, Speculation, Untried
from packager.runtime import Drafts, RefusesDrafts

if TYPE_CHECKING:
    from packager.plan.plan import Plan

_CHARACTERS = 2000
"""Of a text that is handed over: more than the tokens of a prompt take in any language."""


@dataclass(frozen=True, slots=True)
class DraftFiles:
    """The model that drafts, as it lies on this machine: the folder, its files below that, and what
    names their bytes; where its licence lies, and what that is called."""

    folder: Path
    files: tuple[FileEntry, ...]
    key: str
    papers: Path
    license: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the ways: the record of the one that is taken, or came nearest, and the files
    of a draft that pays."""

    speculation: Speculation
    draft: DraftFiles | None = None

    @property
    def key(self) -> str:
        """What names verdict and draft for whoever keeps a package of them."""
        return key_of([self.speculation.to_json(), self.draft.key if self.draft else None])


def obstacle(plan: Plan) -> PackError | None:
    """Why drafted tokens cannot be checked in this build; None where they can."""
    if not plan.speculate:
        return None
    if plan.shape.task != "generate":
        return usage("Vectors and scores are not decoded.", "Leave --speculate out.")
    if plan.recognised is not None and plan.heads:
        return usage(
            f"{plan.recognised.model.place.name} is taken as it is.",
            "Build it from the checkpoint to keep its heads.",
        )
    known = plan.runtime.drafts if isinstance(plan.runtime, Drafts) else ()
    missing = next((name for name in plan.speculate if name not in known), None)
    if missing is None:
        return None
    half = refusal(plan.runtime, Drafts)
    if half is not None:
        return half
    because = f": {plan.runtime.no_drafts}" if isinstance(plan.runtime, RefusesDrafts) else ""
    return usage(
        f"Speculation of the kind {missing!r} with {plan.runtime.name} is not measured here"
        f"{because}.",
        f"It knows {', '.join(known)}." if known else "Take llama.cpp, or leave --speculate out.",
    )


def of_package(folder: Path, runtime_name: str) -> DraftFiles:
    """A finished package as draft; its files are compared with its manifest. Raises PackError (exit
    code 6) for one that has changed."""
    found = intact(folder)
    assert found.contents.runtime.name == runtime_name
    rows = tuple(
        FileEntry(entry.path.removeprefix(f"{MODEL}/"), entry.size, entry.sha256)
        for entry in found.files
        if entry.path.startswith(f"{MODEL}/") and not entry.role
    )
    license_name = found.contents.variant.license
    return DraftFiles(folder / MODEL, rows, artifact_key(found), folder, license_name)


def of_entry(entry: Entry, artifact: Job, papers: Path, license_name: str | None) -> DraftFiles:
    """A draft that was converted in this build from the checkpoint in `papers`."""
    prefix = "out/"
    rows = tuple(
        FileEntry(row.path.removeprefix(prefix), row.size, row.sha256)
        for row in entry.files
        if row.path.startswith(prefix)
    )
    return DraftFiles(entry.folder / "out", rows, str(artifact.key), papers, license_name)


def measure(
    plan: Plan, converted: Entry, artifact: Job, *, how: str, draft: DraftFiles | None
) -> Job:
    """The costs of one way on this machine; with real weights also what is accepted, by kind of
    text."""
    texts = {name: text[:_CHARACTERS] for name, text in continued().items()}
    helper = draft if how == "draft" else None
    inputs: JsonObject = {
        "asked": way(how, str(helper.folder) if helper else None),
        "texts": None if plan.source.kind == "dummy" else texts,
    }
    known: JsonObject = {
        "version": [VERSION, NGRAM, list(WIDTHS)],
        "asked": [how, helper.key if helper else None],
    }
    job = "packager.measure.speculation:measure"
    return measured_job(plan, "speculation", job, converted, artifact, inputs, known)


def record(plan: Plan, entry: Entry, draft: DraftFiles | None) -> Speculation:
    """What the manifest keeps of one way."""
    seen = Speculation.from_json(entry.facts)
    drafting = with_drafting(plan, seen.how).chosen.footprint.drafting
    assert drafting is not None
    seen = seen.but(memory_bytes=drafting.total)
    if seen.how != "draft" or plan.draft is None or draft is None:
        return seen
    footprint = plan.draft.footprint
    kept = Draft(
        variant=plan.draft.variant,
        recipe=plan.draft.recipe,
        files=tuple(f"{DRAFT}/{row.path}" for row in draft.files) if seen.pays else (),
        artifact_bytes=sum(row.size for row in draft.files),
        memory_bytes=footprint.total - footprint.overhead,
    )
    return seen.but(draft=kept)


def decide(
    measured: Sequence[Speculation], draft: DraftFiles | None, untried: Sequence[Untried] = ()
) -> Verdict:
    """The way that is fastest among those that pay; where none does, the one that came nearest."""
    best = max(measured, key=lambda one: (bool(one.pays), one.speed_up or 0.0))
    others = tuple(
        OtherWay(how=one.how, acceptance=one.acceptance, speed_up=one.speed_up, same=one.same)
        for one in measured
        if one is not best
    )
    taken = best.pays and best.how == "draft"
    return Verdict(best.but(others=others, untried=tuple(untried)), draft if taken else None)


def settled(plan: Plan, verdict: Verdict | None) -> Plan:
    """The plan with the memory of the way that is taken alone, and without the heads where they are
    not worth their bytes."""
    how = verdict.speculation.how if verdict is not None and verdict.speculation.pays else None
    if not plan.speculate:
        return plan
    return with_drafting(with_heads(plan, plan.heads and how == "mtp"), how)
