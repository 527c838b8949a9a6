"""What an adapter builds: a tiny model of random weights is converted by the adapter's own job and
asked through its own session, each in a child process, as in a build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packager.checkpoint import Checkpoint
from packager.checkpoint.control_tokens import QWEN2_5
from packager.errors import PackError
from packager.json_values import JsonObject, texts_at
from packager.need.workload import workload_for
from packager.process import resolve, run_job
from packager.quality import parity
from packager.reference import Reference
from packager.runtime import Report, Runtime
from packager.session import LOGITS_BLOCK, Session
from packager.shape import Shape
from packager.sources.dummy import write_checkpoint

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONTEXT = 512
NEW_TOKENS = 8
_LEAST_CORRELATION = 0.9
"""Of the logits with those of the unquantized weights; quantizing to 4 bits leaves 0.99 of random
weights, a wrong tensor or a wrong order of tokens 0.5 and less."""
_REPO_ID = "Qwen/Qwen2.5-tiny"
TINY = Shape("qwen2", 256, 2, 4, 2, 64, 512, 1024, True, True, False, 2048)
"""Qwen2.5 in small: widths that blocks of 256 divide, a thousand tokens."""


def build_problems(adapter: Runtime, folder: Path, weights: str | None = None) -> list[str]:
    """Every breach as a sentence, after a build in `folder` with the recipe named `weights`, or the
    first that has no obstacle.

    Raises PackError where the build or the session does, and for an unknown recipe.
    """
    recipes = [adapter.recipe(weights)] if weights else adapter.recipes()
    buildable = [recipe for recipe in recipes if adapter.obstacle(TINY, recipe) is None]
    if not buildable:
        return ["no recipe builds a small Qwen2.5, so that nothing can be asked."]
    recipe = buildable[0]
    checkpoint, out = folder / "checkpoint", folder / "out"
    checkpoint.mkdir()
    write_checkpoint(_Silent(), checkpoint, repo_id=_REPO_ID, shape=TINY, control=QWEN2_5)
    origin = {
        **{"kind": "dummy", "repo_id": _REPO_ID, "revision": None},
        **{"license": "CC0-1.0", "license_name": None},
    }
    inputs: JsonObject = {"origin": origin, "checkpoint_key": "contract"}
    workload = replace(workload_for("chat"), context=CONTEXT, prompt=CONTEXT // 2)
    facts = _done(
        adapter.build_job,
        {
            "checkpoint": str(checkpoint),
            "recipe": {**asdict(recipe), "inputs": inputs},
            "workload": workload.as_dict(),
            "out": str(out),
        },
        folder / "build.log",
    )
    breaches = list(_artifact(facts, out))
    if breaches:
        return breaches
    arguments = {
        "session": adapter.session,
        "artifact": str(out),
        "checkpoint": str(checkpoint),
        "kv": recipe.kv,
        "log": str(folder / "templates.log"),
    }
    answer = _done("packager.contract.built:examine", arguments, folder / "session.log")
    return texts_at(answer, "breaches")


def _artifact(facts: JsonObject, out: Path) -> Iterator[str]:
    size = facts.get("artifact_bytes")
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if not written:
        yield "the build job leaves no file in `out`."
    elif not isinstance(size, int) or not 0 < size <= written:
        yield f"the build job returns artifact_bytes {size!r} and leaves {written} bytes."


def _done(job: str, arguments: JsonObject, log: Path) -> JsonObject:
    messages = run_job(job, arguments, log)
    while True:
        try:
            next(messages)
        except StopIteration as stop:
            value: JsonObject = stop.value.value
            return value


class _Silent:
    """A report that nobody reads."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """See packager.runtime.Report."""

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""

    def text(self, piece: str) -> None:
        """See packager.runtime.Report."""


def examine(
    report: Report, *, session: str, artifact: str, checkpoint: str, kv: str, log: str
) -> JsonObject:
    """A job: everything a Session promises, asked of the artifact. Returns `breaches`."""
    source = Checkpoint.open(Path(checkpoint))
    settings = {"context": CONTEXT, "kv": kv, "threads": None, "gpu_layers": 0}
    model: Session = resolve(session)(artifact, settings)
    try:
        ids = model.encode("The quick brown fox jumps over the lazy dog. " * 12)[: LOGITS_BLOCK + 9]
        breaches = [
            *parity.check(model, source, Path(log), stops=False).findings,
            *_logits(model, source, ids, report),
            *_answers(model, ids[:16]),
        ]
    finally:
        model.close()
    return {"breaches": breaches}


def _logits(
    model: Session, source: Checkpoint, ids: Sequence[int], report: Report
) -> Iterator[str]:
    # Late: numpy, for the child that computes.
    import numpy as np

    blocks: list[npt.NDArray[np.float32]] = []
    for block in model.logits(ids):
        if block.ndim != 2 or block.shape[1] < TINY.vocab:
            yield f"a block of logits is {block.shape}, not (tokens, {TINY.vocab} or more)."
            return
        if block.dtype != np.float32 or len(block) > LOGITS_BLOCK:
            yield (
                f"a block of logits is {block.dtype} of {len(block)} tokens, not float32 of at "
                f"most {LOGITS_BLOCK}."
            )
        blocks.append(np.array(block[:, : TINY.vocab]))
    if sum(map(len, blocks)) != len(ids):
        yield f"{len(ids)} ids give {sum(map(len, blocks))} rows of logits."
        return
    wanted = Reference.compute(source, [list(ids)], report).logits(0)
    alike = float(np.corrcoef(np.concatenate(blocks).ravel(), wanted.ravel())[0, 1])
    if not alike >= _LEAST_CORRELATION:
        yield (
            f"the logits correlate to {alike:.2f} with those of the unquantized weights; "
            f"{_LEAST_CORRELATION} and more is expected."
        )
    try:
        for _ in model.logits([*ids] * (CONTEXT // len(ids) + 1)):
            pass
        yield "logits() takes more ids than the context holds; it must raise PackError."
    except PackError:
        pass


def _answers(model: Session, prompt: Sequence[int]) -> Iterator[str]:
    tokens: list[int] = []
    first = model.generate(prompt, NEW_TOKENS, tokens.append, stop=False)
    if len(first) != NEW_TOKENS:
        yield f"generate(stop=False) gives {len(first)} tokens, not the {NEW_TOKENS} asked for."
    if tokens != list(first):
        yield "generate() gives on_token other tokens than it returns."
    if list(model.generate(prompt, NEW_TOKENS, lambda token: None, stop=False)) != list(first):
        yield "generate() answers the same prompt differently the second time."
    stopped = model.generate(prompt, NEW_TOKENS, lambda token: None)
    if model.ends() & set(stopped):
        yield "generate() returns the token that ended the turn."
