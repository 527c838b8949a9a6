"""Package: the folder that is shipped. Files first, the manifest last, the whole folder renamed
into place."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packager import __version__, papers
from packager.catalog import licences
from packager.catalog.licences import spdx
from packager.checkpoint import Checkpoint
from packager.errors import usage
from packager.files import (
    copy_hashed,
    regular_files,
    replace_folder,
    scratch_folder,
    sha256,
    write_atomically,
)
from packager.package import manifest, sampling
from packager.package.content import content_sha256
from packager.package.manifest import FileEntry
from packager.package.package import MODEL, Package
from packager.package.verify import strangers
from packager.papers import licence
from packager.pipeline.package_readme import package_readme
from packager.pipeline.stages import Made, checkpoint_of
from packager.plan.plan import Plan
from packager.report import figures
from packager.report.budgets import limits, verdicts


def write(
    plan: Plan, build_key: str, made: Made, losers: Sequence[dict[str, Any]] = ()
) -> Generator[tuple[int, int], None, Package]:
    """Copy, hash and describe; yields (bytes done, bytes in all) and returns the Package.

    A package of ours that stands in the way is replaced only once the new one is whole. Raises
    PackError (usage) where somebody has put something of his own there since the build was planned.
    """
    artifact = made.converted.folder / "out"
    checkpoint = checkpoint_of(made.fetched)
    model_files = regular_files(artifact)
    total = sum(path.stat().st_size for path in model_files)
    done = 0
    with _replacing(plan.out) as folder:
        entries = []
        for source in model_files:
            relative = f"{MODEL}/{source.relative_to(artifact).as_posix()}"
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            copy = copy_hashed(source, folder / relative)
            size = 0
            while True:
                try:
                    size += next(copy)
                except StopIteration as stop:
                    entries.append(FileEntry(relative, size, stop.value))
                    break
                yield done + size, total
            done += size
        entries += _papers(plan, checkpoint, folder, tuple(entries), made)
        manifest.write(
            folder, papers.added(folder, _describe(plan, build_key, made, tuple(entries), losers))
        )
        # Read as anybody will read it, while there is still the old package to keep.
        found = manifest.read(folder)
    return Package(plan.out, found)


@contextmanager
def _replacing(final: Path) -> Iterator[Path]:
    """A new folder on the disk of `final`, which takes its place when the block ends well; the old
    content goes last."""
    with scratch_folder(final.parent, ".qwen-pack-") as holder:
        new = holder / "new"
        new.mkdir()
        yield new
        if final.exists() and strangers(final):
            raise usage(
                f"{final} holds what qwen-pack did not make.",
                "Choose another folder with --out; everything is in the cache.",
            )
        replace_folder(new, final, holder / "old")


def _papers(
    plan: Plan, checkpoint: Path, folder: Path, model: tuple[FileEntry, ...], made: Made
) -> list[FileEntry]:
    """Licence, chat template and the README that stand beside the model."""
    chosen = plan.chosen
    variant = {"repo_id": chosen.variant.repo_id, "license": _licence(plan, made)}
    written = licence.write(
        folder, checkpoint, variant, chosen.recipe.id, dummy=plan.source.kind == "dummy"
    )
    text = Checkpoint.open(checkpoint).chat_template
    if text is not None:
        write_atomically(folder / "chat_template.jinja", text.encode())
        written.append("chat_template.jinja")
    size, names = sum(entry.size for entry in model), [entry.path for entry in model]
    write_atomically(folder / "README.md", package_readme(plan, size, made, names).encode())
    written.append("README.md")
    return [
        FileEntry(name, (folder / name).stat().st_size, sha256(folder / name)) for name in written
    ]


def _licence(plan: Plan, made: Made) -> str | None:
    return licences.stated(plan.chosen.variant.license, plan.source.kind, made.fetched.facts)


def _describe(
    plan: Plan,
    build_key: str,
    made: Made,
    entries: tuple[FileEntry, ...],
    losers: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    chosen, variant, versions = plan.chosen, plan.chosen.variant, plan.versions
    fetched, converted, measured = made.fetched, made.converted, made.figures(plan)
    artifact_bytes = sum(entry.size for entry in entries if entry.path.startswith(f"{MODEL}/"))
    text = next((entry.sha256 for entry in entries if entry.path == "chat_template.jinja"), None)
    data = {
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
        "source": {
            "kind": plan.source.kind,
            "location": Path(plan.source.location).name
            if plan.source.kind == "local"
            else plan.source.location,
            "files": fetched.facts["files"],
        },
        "recipe": {"id": chosen.recipe.id, **asdict(chosen.recipe)},
        "runtime": {
            "name": plan.runtime.name,
            "version": versions.get(plan.runtime.distributions[0])
            if plan.runtime.distributions
            else None,
            "settings": made.start.settings() if made.start else None,
        },
        "files": [asdict(entry) for entry in entries],
        "artifact_bytes": artifact_bytes,
        "offload": chosen.split.as_dict() if chosen.split else None,
        "predicted": {
            "footprint": chosen.footprint.as_dict(),
            "forecast": chosen.forecast.as_dict(),
            "artifact_bytes": chosen.artifact_bytes,
        },
        "measured": measured,
        "not_measured": made.not_measured,
        "measurements": [],
        "quality": made.quality,
        "verdicts": verdicts(limits(plan), artifact_bytes, measured),
        "alternatives": list(losers),
        "why": {"sentence": plan.why(), "smaller": plan.smaller()},
        "build": {
            "convert_seconds": converted.facts["seconds"],
            "convert_peak_bytes": converted.facts["peak_bytes"],
            "importance": converted.facts.get("importance"),
        },
        "tools": {"qwen-pack": __version__, "python": platform.python_version(), **versions},
        "chat_template_sha256": text,
        "sampling": sampling.of(Checkpoint.open(checkpoint_of(fetched)).generation_config),
    }
    return {
        **data,
        "content_sha256": content_sha256(data),
        "errors_percent": figures.errors_percent(data),
    }
