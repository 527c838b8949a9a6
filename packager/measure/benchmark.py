"""The smoke benchmark: one loaded model, fresh prompts, greedy decoding, every token's time kept.

`measure` is a job for a child process; the session class of the runtime reaches it by its dotted
name. A whole measurement, with the threads found first, is `packager.measure.measurement.run`.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from typing import Any

from packager.errors import ExitCode, NotHere, PackError
from packager.hearing import AudioSession
from packager.json_values import JsonObject, at, at_or_none, objects_at, texts_at
from packager.measure import noise, throttling
from packager.measure.gauges import energy
from packager.measure.gauges.machine import Gauges, gauges_of
from packager.measure.noise import Attempt, calm
from packager.measure.pictures import Looking
from packager.measure.sounds import Listening
from packager.measure.trials import Trial, answer, prompt_ids, quartile_spread, summary
from packager.process import resolve
from packager.records import Machine, Measurement, Sustained
from packager.runtime import Report
from packager.session import Session, VisionSession

__all__ = ["NEW_TOKENS", "REPEATS", "VERSION", "Trial", "measure", "prompt_ids", "summary"]

VERSION = 6
"""Raised when the same artifact would give other figures: cached measurements of older versions are
not used."""

NEW_TOKENS = 64
REPEATS = 5
_LEAST_REPEATS, _LEAST_TOKENS = 3, 16

PROMPTS = (128, 512)
"""Prompt lengths whose prefill every measurement tells, so that packages for different workloads
can be compared."""

_RATE_REPEATS = 5
_EMPTY_PROMPT, _EMPTY_TOKENS = 8, 32
_FULL_TOKENS = 48
_CHECK_PROMPT, _CHECK_TOKENS = 128, 16

# A few answers of some milliseconds take chance for speed: a quick model gives as many as last so
# long.
_QUICK_S, _MOST_REPEATS = 0.5, 40

# A measurement is worth a minute of anybody's time, not an hour: what would take longer is
# shortened, and said.
_ANSWERS_S = 60.0
_FILL_S = 15.0


def measure(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    seed: int = 1,
    thorough: bool = False,
    attempts: int = 1,
    sustained_s: float = 0,
    pictures: JsonObject | None = None,
    sounds: JsonObject | None = None,
) -> JsonObject:
    """Measure a model; see `packager.measure.trials.summary` for the figures of its answers. What
    cannot run on this machine gives `not_measured`, a sentence, and `hint`.

    An answer is the workload's prompt and `new_tokens` tokens, so `decode_tps` is the rate behind
    that prompt. With `thorough` come the rates of other lengths: prefill of 128 and 512 tokens,
    decoding in an empty and in a full context. What is noisy is measured again, `attempts` times at
    most; with more than one, a model whose `repeats` answers take less than half a second gives
    more of them, 40 at most. Every prompt is new, so no prefix cache can shorten the time to the
    first token; one alone is answered twice, at the beginning and at the end, to see that greedy
    decoding repeats itself.

    With `pictures` the session is a VisionSession, and figures of pictures come after all others;
    `most` in it bounds the tokens of one, None where nothing does. With `sounds` it is an
    AudioSession, and figures of sound of `seconds` come after; with `recordings` in it and
    the `texts` around a sound also the word errors.
    """
    make = resolve(session)  # which imports the engine: no part of loading a model
    gauges = gauges_of(make, settings)
    # As the search for the number of threads had it.
    with gauges.pinned(at_or_none(settings, "threads", int)) as processors:
        loading = time.perf_counter()
        try:
            model: Session = make(artifact, settings)
        except NotHere as error:
            return {"not_measured": error.message, "hint": error.hint}
        # A session that computes elsewhere takes the time there.
        load_s: float = getattr(model, "load_s", time.perf_counter() - loading)
        report.note(f"loaded in {load_s:.1f} s")
        # After the engine: a GPU has a counter of its own.
        meter = gauges.meter(gpu=getattr(model, "runs_on", "cpu") != "cpu")
        run = _Run(
            report,
            model,
            at(settings, "context", int),
            prompt_tokens,
            seed,
            meter,
            _QUICK_S if attempts > 1 else 0.0,
            gauges,
        )
        try:
            measured = _figures(run, new_tokens, repeats, thorough, attempts, sustained_s)
            if pictures is not None:
                measured = _with_pictures(run, measured, pictures)
            if sounds is not None:
                measured = _with_sound(run, measured, sounds)
        finally:
            if meter:
                meter.close()
            model.close()
    measurement = measured.but(
        load_s=load_s,
        runs_on=getattr(model, "runs_on", "cpu"),
        threads=getattr(model, "threads", None) or settings.get("threads"),
        processors=None if processors is None else tuple(processors),
        machine=Machine.from_json(gauges.machine()),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        through=gauges.through(),
    )
    return measurement.to_json()


def _figures(
    run: _Run, new_tokens: int, repeats: int, thorough: bool, attempts: int, sustained_s: float
) -> Measurement:
    """All answers of the open model; see `measure`."""
    check = run.prompt(min(_CHECK_PROMPT, run.prompt_tokens))
    checked = answer(run.model, check, min(_CHECK_TOKENS, new_tokens))
    new_tokens = run.shortened(
        new_tokens, repeats, statistics.median(checked.gaps_s) if checked.gaps_s else 0.0
    )
    gauges, note = run.gauges, run.report.note
    parts: dict[str, list[Attempt[Any]]] = {
        "answers": calm(lambda: run.answers(new_tokens, repeats), attempts, note, gauges.mark)
    }
    seen, trials = parts["answers"][0].figures
    megahertz = gauges.megahertz()
    if thorough:
        parts["rates"] = calm(run.rates, min(2, attempts), note, gauges.mark)
        parts["full context"] = calm(
            lambda: (run.full(seen.prefill_tps), 0.0), 1, present=gauges.mark
        )
    again = answer(run.model, check, min(_CHECK_TOKENS, new_tokens))
    memory = gauges.memory()
    long_run = run.sustained(sustained_s) if sustained_s else None
    if again.tokens != checked.tokens[: len(again.tokens)]:
        raise PackError(
            "Greedy decoding gave two different answers to one prompt.",
            "The engine or the artifact is broken.",
            ExitCode.BUDGET,
        )
    believed = noise.verdict(parts)
    figures: Measurement = seen.but(
        **(parts["rates"][0].figures if thorough else {}),
        **(parts["full context"][0].figures if thorough else {}),
        sustained=long_run,
        energy=energy.spent(
            run.meter,
            sum(len(trial.gaps_s) for trial in trials),
            len(trials),
            sum(trial.decode_j for trial in trials),
            sum(trial.prompt_j for trial in trials),
        ),
        peak_memory_bytes=max(gauges.memory().peak, memory.peak),
        steady_memory_bytes=memory.steady,
        proportional_memory_bytes=memory.proportional,
        gpu_memory_bytes=memory.gpu,
        deterministic=True,
        cpu_mhz=megahertz,
        noisy=believed.noisy,
        noisy_because=believed.because,
        other_cpu_cores=believed.others,
        attempts=believed.attempts,
        left_out=tuple(run.left_out),
    )
    return figures


def _with_pictures(run: _Run, found: Measurement, asked: JsonObject) -> Measurement:
    """The figures of text, and those of pictures, whose memory counts in the peak."""
    assert isinstance(run.model, VisionSession)
    most = at_or_none(asked, "most", int)
    looking = Looking(run.report, run.model, run.context, most, run.prompt_tokens, run.seed)
    gauges = run.gauges
    figures = looking.figures(lambda: gauges.memory().peak)
    memory = gauges.memory()
    figures |= looking.pair(figures)
    both: Measurement = found.but(
        **figures,
        peak_memory_bytes=max(memory.peak, found.peak_memory_bytes or 0),
        gpu_memory_bytes=memory.gpu,
        left_out=(*found.left_out, *looking.left_out),
    )
    return both


def _with_sound(run: _Run, found: Measurement, sounds: JsonObject) -> Measurement:
    """The figures of text, and those of sound, whose memory counts in the peak."""
    assert isinstance(run.model, AudioSession)
    listening = Listening(run.report, run.model, run.context, at(sounds, "seconds", int))
    figures = listening.figures(lambda: run.gauges.memory().peak)
    memory = run.gauges.memory()
    if "recordings" in sounds:
        rows, texts = objects_at(sounds, "recordings"), texts_at(sounds, "texts")
        figures |= listening.transcribed(rows, texts, run.context)
    both: Measurement = found.but(
        **figures,
        peak_memory_bytes=memory.peak,
        gpu_memory_bytes=memory.gpu,
        left_out=(*found.left_out, *listening.left_out),
    )
    return both


class _Run:
    """The parts of a measurement of one loaded model; `left_out` says in words what they left out
    and why."""

    def __init__(
        self,
        report: Report,
        model: Session,
        context: int,
        prompt_tokens: int,
        seed: int,
        meter: energy.Meter | None,
        quick_s: float,
        gauges: Gauges,
    ) -> None:
        self.report, self.model, self.context, self.prompt_tokens = (
            report,
            model,
            context,
            prompt_tokens,
        )
        self.seed, self.meter, self._quick_s, self.gauges = seed, meter, quick_s, gauges
        self.left_out: list[str] = []

    def prompt(self, count: int) -> list[int]:
        """A prompt that no engine has seen in this measurement."""
        self.seed += 1
        return prompt_ids(self.model, count, self.seed - 1)

    def shortened(self, new_tokens: int, repeats: int, gap_s: float) -> int:
        """Tokens of an answer that this machine can give `repeats` times in a bearable time."""
        if new_tokens * repeats * gap_s <= _ANSWERS_S:
            return new_tokens
        fewer = min(new_tokens, max(_LEAST_TOKENS, int(_ANSWERS_S / repeats / gap_s)))
        if fewer < new_tokens:
            self.left_out.append(
                f"answers of {fewer} tokens instead of {new_tokens}: one takes {gap_s:.2g} s"
            )
        return fewer

    def answers(
        self, new_tokens: int, repeats: int
    ) -> tuple[tuple[Measurement, list[Trial]], float]:
        """Answers to the workload's prompt: figures and trials, and their spread."""
        trials: list[Trial] = []
        began = time.monotonic()
        while not self._enough(len(trials), repeats, began):
            trials.append(
                answer(self.model, self.prompt(self.prompt_tokens), new_tokens, self.meter)
            )
            self.report.progress(min(len(trials), repeats), repeats, "answers")
            spent = time.monotonic() - began
            if (
                _LEAST_REPEATS <= len(trials) < repeats
                and spent * repeats / len(trials) > 2 * _ANSWERS_S
            ):
                reason = (
                    f"{len(trials)} answers instead of {repeats}: one takes "
                    f"{spent / len(trials):.0f} s"
                )
                self.left_out += [reason] if reason not in self.left_out else []
                break
        figures = summary(trials, self.prompt_tokens, new_tokens)
        return (figures, trials), max(figures.spread or 0.0, figures.ttft_spread or 0.0)

    def _enough(self, done: int, repeats: int, began: float) -> bool:
        """Whether so many answers since `began` are as many as were asked for, and a quick model's
        as long as can be believed."""
        return done >= repeats and (
            done >= _MOST_REPEATS or time.monotonic() - began >= self._quick_s
        )

    def _answers(self, length: int, tokens: int, repeats: int) -> list[Trial]:
        """Answers of `tokens` tokens to prompts of `length` tokens."""
        trials: list[Trial] = []
        began = time.monotonic()
        while not self._enough(len(trials), repeats, began):
            trials.append(answer(self.model, self.prompt(length), tokens))
        return trials

    def rates(self) -> tuple[dict[str, float | None], float]:
        """Prefill of the standard lengths, and decoding in an empty context: figures, and the
        spread of the latter."""
        figures: dict[str, float | None] = {}
        for length in PROMPTS:
            name = f"prefill_{length}_tps"
            figures[name] = None
            if length + 1 > self.context:
                self._leave_out(f"prefill of {length} tokens: the context has {self.context}")
                continue
            rate = length / statistics.median(
                trial.ttft_s for trial in self._answers(length, 1, _RATE_REPEATS)
            )
            figures[name] = rate
            self.report.note(f"prefill of {length} tokens: {rate:.0f} tok/s")
        tokens = min(_EMPTY_TOKENS, max(2, self.context // 4))
        start = min(_EMPTY_PROMPT, self.context - tokens)
        trials = self._answers(start, tokens, _RATE_REPEATS)
        decode = sorted(len(trial.gaps_s) / sum(trial.gaps_s) for trial in trials)
        figures["decode_empty_tps"] = statistics.median(decode)
        return figures, quartile_spread(decode)

    def full(self, prefill_tps: float) -> dict[str, float]:
        """Decoding at the end of the workload's context, filled as far as it takes a bearable
        time."""
        tokens = min(_FULL_TOKENS, max(2, self.context // 4))
        wanted = self.context - tokens
        filled = min(wanted, max(self.prompt_tokens, int(prefill_tps * _FILL_S)))
        if filled < wanted:
            text = f"decoding with {filled} tokens in the context of {self.context}"
            self._leave_out(f"{text}: filling it takes more than {wanted / prefill_tps:.0f} s here")
        self.report.note(f"filling the context with {filled} tokens")
        trials = self._answers(filled, tokens, 1)
        return {
            "decode_full_tps": 1
            / statistics.median(gap for trial in trials for gap in trial.gaps_s),
            "full_context_tokens": filled,
            "prefill_full_tps": filled / statistics.median(trial.ttft_s for trial in trials),
        }

    def sustained(self, seconds: float) -> Sustained:
        """See packager.measure.throttling.run."""
        start = min(_EMPTY_PROMPT, self.context // 2)
        room = max(2, min(256, self.context - start))

        def progress(done: int, total: int) -> None:
            self.report.progress(done, total, "windows")

        return throttling.run(self.model, self.prompt(start), room, seconds, progress, self.gauges)

    def _leave_out(self, text: str) -> None:
        if text not in self.left_out:
            self.left_out.append(text)
