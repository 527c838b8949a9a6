"""A runtime of numbers only (packager.reference computes them) that dies, hangs or errs as it is
told, until it is started with care.

It is told by variables: `DYING` names stages (check, convert, measure, quality, run, behave), each
with a word for every degree of care from 0 on, e.g. `convert=SIGILL,SIGFPE;check=wrong`: a signal
to die of, `hang`, `refuses` with a sentence, `wrong` numbers, or `assert`, which says what ggml
says and aborts; `breaks-numpy` lets the next reference die, `stops-numpy` lets it hang, and `closes`
lets the closing of the session die.
Where the words end it is right.
Whatever it is asked it writes down in the file `DYING_LOG`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.runtime import Ladder, Report, Rung, Trial
from tests.support.make_checkpoint import Silent
from tests.support.plain_runtime import PlainRuntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CARE = "DYING_CARE"
MOST_CARE = 5
ASSERTION = "/src/dying.c:42: GGML_ASSERT(rows == 16) failed"
STAGES = {
    "packager.engine_check.job": "check",
    "packager.measure.benchmark": "measure",
    "packager.quality.job": "quality",
    "packager.behaviour.one_prompt": "run",
    "packager.behaviour.job": "behave",
}


class Dying(PlainRuntime):
    """16 bits per weight, and a ladder of five further ways."""

    build_job = "tests.support.dying_runtime:build"
    session = "tests.support.dying_runtime:DyingSession"

    def __init__(self) -> None:
        super().__init__("dying", "dying", bits=(16,))

    def ladder(self) -> Ladder:
        careful = (
            Rung(f"care-{care}", f"Care {care}.", {CARE: str(care)}, avoids=("fpu",))
            for care in range(1, MOST_CARE + 1)
        )
        return Ladder(
            ("numpy",),
            (Trial("b16", 0.99),),
            (Rung("default"), *careful),
            reinstall="pip install dying",
        )

    def how_to_run(self, recipe: Any, workload: dict[str, Any]) -> str:
        return f"Run it with {(workload['settings'] or {}).get('environment', {})}.\n"


def build(
    report: Report, *, checkpoint: str, recipe: dict[str, Any], workload: dict[str, Any], out: str
) -> dict[str, Any]:
    """The artifact is the checkpoint itself."""
    live_or_die(stage() or "convert")
    folder = Path(out)
    folder.mkdir(exist_ok=True)
    for path in Path(checkpoint).iterdir():
        shutil.copyfile(path, folder / path.name)
    return {"artifact_bytes": sum(path.stat().st_size for path in folder.iterdir())}


class DyingSession:
    """See packager.session.Session: every token costs the whole forward pass."""

    def __init__(self, artifact: str, settings: dict[str, Any]) -> None:
        # Late: numpy, as an engine.
        from packager.quality.reference_tokenizer import reference_tokenizer

        word = live_or_die(stage())
        self._wrong, self._word = word == "wrong", word
        self._closes = word == "closes"
        self._source = Checkpoint.open(Path(artifact))
        self._tokenizer = reference_tokenizer(self._source)
        self._ends = frozenset(self._source.generation_config["eos_token_id"])

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def ends(self) -> frozenset[int]:
        return self._ends

    def chat_template(self) -> str | None:
        found = read_json(Path(self._source.folder, "tokenizer_config.json")).get("chat_template")
        return found if isinstance(found, str) else None

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        answer: list[int] = []
        while len(answer) < max_new_tokens:
            token = int(self._logits([*prompt, *answer])[-1].argmax())
            if stop and token in self._ends:
                break
            answer.append(token)
            on_token(token)
        if self._word == "breaks-numpy":
            self._replace_reference(lambda: os.kill(os.getpid(), signal.SIGILL))
        elif self._word == "stops-numpy":
            self._replace_reference(lambda: time.sleep(3600))
        return answer

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        found = self._logits(ids)
        for start in range(0, len(ids), 128):
            yield found[start : start + 128]

    def close(self) -> None:
        if self._closes:
            os.kill(os.getpid(), signal.SIGSEGV)

    def _replace_reference(self, end: Callable[[], None]) -> None:
        """What asks for a reference from now on ends as by a kernel of another processor, or never."""
        from packager.reference import Reference

        def ended(*arguments: Any) -> None:
            end()

        Reference.compute = staticmethod(ended)  # type: ignore[method-assign, assignment]

    def _logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        from packager.reference import Reference

        found = Reference.compute(self._source, [list(ids)], Silent()).logits(0)
        return found[:, ::-1].copy() if self._wrong else found


def stage() -> str:
    """Which of our jobs asks, by the modules on the stack; empty for any other."""
    frame = sys._getframe()
    while frame is not None:
        name = STAGES.get(frame.f_globals.get("__name__", ""))
        if name:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def live_or_die(where: str) -> str:
    """Do what the variables say for that stage and this care; returns the word, empty where all is
    well."""
    care = int(os.environ.get(CARE, "0"))
    told = dict(part.split("=") for part in os.environ.get("DYING", "").split(";") if part)
    words = told.get(where, "").split(",")
    word = words[care] if care < len(words) else ""
    if where:
        with open(os.environ["DYING_LOG"], "a") as log:
            log.write(f"{where} {care} {word}\n")
    if word == "hang":
        time.sleep(3600)
    elif word == "assert":
        print(ASSERTION, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    elif word == "refuses":
        raise bad_input("This engine does not want to.", "Ask it again.")
    elif word.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, word))
    return word
