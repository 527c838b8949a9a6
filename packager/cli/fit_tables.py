"""What `qwen-pack fit` prints for people: the choice in a sentence, tables, the nearest misses, the
steps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from shutil import get_terminal_size

from packager.cli.fit_answer import Answer
from packager.cli.output import emit_table, say
from packager.escapes import command
from packager.need.languages import in_words
from packager.need.usecases import use_case
from packager.need.workload import Workload
from packager.predict.forecast import Forecast
from packager.recipe import marks_of
from packager.select import Candidate
from packager.select.none_fits import none_fits
from packager.select.preference import undercut
from packager.select.speed_rules import QUERY_TOKENS
from packager.select.steps import Step
from packager.units import human_bytes, human_rate

_ROWS = 12
_FEW = 5
_WIDE = 104
_CROWDED = ("verdict", "file")
_SPEEDS = {
    "generate": ("tok/s", "ttft"),
    "embed": ("texts/s", "query"),
    "rerank": ("pairs/s", "one pair"),
}
"""What the two columns of speed are called, by what a model gives."""
_KINDS = {"measured": "measured here", "same-class": "same device class", "estimated": "estimated"}
_WHY = {
    "smallest": "needs the least memory",
    "quality": "has the best published scores",
    "speed": "answers fastest",
    "balanced": "is the best balance of quality, speed and memory",
    "cost": "takes the least machine time per answer",
}
_WHY_OF_TEXTS = {"speed": "reads fastest", "cost": "takes the least machine time per text"}
"""The same where a vector or a score is given."""


def show_one(answer: Answer, show_all: bool, words: Sequence[str]) -> None:
    """One target: sentence, table, and what follows from the verdict; `words` are what `build
    --target` is told for the same answer."""
    say(_sentence(answer))
    if answer.target.device.disturbed:
        share = f"{answer.target.device.disturbed:.0%}"
        say(
            f"Note: the speed of {answer.target.name} was measured while other programs took "
            f"{share} of the processors."
        )
    if answer.chosen is not None:
        for note in answer.chosen.notes:
            say(f"Note: {note}")
    # One variant is shown in each of its forms, a whole catalogue by what passes.
    whole = show_all or len({candidate.variant.repo_id for candidate in answer.judged}) == 1
    rows = answer.judged if whole else _best(answer.judged)
    if rows:
        say()
        _candidates(rows, whole, answer.workload)
    if answer.steps is not None:
        say()
        _steps(answer)
        _instead(answer)
        for draft in answer.drafts:
            say(f"Draft: {draft.sentence()}")
    if answer.chosen is None:
        say()
        _misses(answer)
        if answer.elsewhere is not None:
            say(f"\n{answer.elsewhere}")
    say(_hint(answer, whole, words), err=True)


def show_matrix(answers: Sequence[Answer], model: str | None) -> None:
    """One row per target."""
    rows = []
    for answer in answers:
        best = answer.chosen
        if best is not None:
            rows.append(
                (
                    answer.target.name,
                    best.variant.name,
                    best.recipe.id,
                    *_figures(best, answer.workload),
                    "; ".join(f"may miss {reason}" for reason in best.may_miss),
                )
            )
        else:
            nearest = next(iter(_serving(answer.judged)), None)
            why = (
                f"nothing fits: {nearest.label}: {nearest.reasons[0]}"
                if nearest
                else answer.problem or "nothing fits"
            )
            rows.append((answer.target.name, "", "", "", "", "", "", why))
    speeds = _speeds(answers[0].workload) if answers else _SPEEDS["generate"]
    columns = ("target", "variant", "recipe", "memory", "file", *speeds, "why not")
    emit_table(f"{model} on each target" if model else "", columns, rows, right=columns[3:7])


def _sentence(answer: Answer) -> str:
    best, workload = answer.chosen, answer.workload
    variants = {candidate.variant.repo_id for candidate in answer.judged}
    case = f"{workload.use_case}{in_words(workload.languages)} at a context of {workload.context}"
    if best is None:
        return none_fits(answer.target, workload, answer.judged)
    passing = {
        candidate.variant.repo_id
        for candidate in answer.judged
        if candidate.passes and candidate.sure >= best.sure
    }
    within = undercut(best, answer.judged, workload.prefer)
    most = _WHY[workload.prefer]
    if not _answers(workload):
        most = _WHY_OF_TEXTS.get(workload.prefer, most)
    why = f"of {len(passing)} variants that pass every rule it {most}{within.rstrip(',')}"
    if len(passing) == 1:
        forgiven = any(note.startswith("Accepted because") for note in best.notes)
        passes = "passes every rule" if best.sure else "fails no rule with certainty"
        named = f"you named it, and it {passes} that remains" if forgiven else f"it {passes}"
        why = named if len(variants) == 1 else f"of {len(variants)} variants it alone {passes}"
    return (
        f"{best.label} for {answer.target.name}: {why} ({case}). "
        f"It takes {_takes(answer, best)}, {_pace(workload, best.forecast)}."
        + _cost(answer, best)
        + "".join(f" It may miss {reason}." for reason in best.may_miss)
    )


def _pace(workload: Workload, speed: Forecast) -> str:
    """How fast it is: an answer token by token, or the vector or the score of one text."""
    after = (
        f"after {_milliseconds(speed.ttft_ms)} "
        f"({_milliseconds(speed.ttft_low_ms)} to {_milliseconds(speed.ttft_high_ms)}"
    )
    task = use_case(workload.use_case).task
    if task != "generate":
        made = "vector" if task == "embed" else "score"
        kind = _KINDS[speed.confidence]
        return f"gives the {made} of {workload.prompt} tokens {after}, {kind})"
    return (
        f"answers at {human_rate(speed.decode_tps)} tok/s ({human_rate(speed.low)} to "
        f"{human_rate(speed.high)}, "
        f"{_KINDS[speed.confidence]}){_together(speed)}, first token {after}){_encoding(speed)}"
    )


def _encoding(speed: Forecast) -> str:
    """What the encoder of a picture or sound takes of the time to the first token."""
    if speed.encode is None:
        return ""
    low, high = _milliseconds(speed.encode.low), _milliseconds(speed.encode.high)
    return f", of which the encoder takes {_milliseconds(speed.encode.value)} ({low} to {high})"


def _together(speed: Forecast) -> str:
    """What several sequences get together, each at the rate before it."""
    if speed.parallel == 1:
        return ""
    return f" each of {speed.parallel} at once, {human_rate(speed.aggregate_tps)} together"


def _cost(answer: Answer, best: Candidate) -> str:
    cost = answer.cost(best)
    if cost is None:
        return ""
    what = "tokens" if _answers(answer.workload) else "tokens of texts"
    usual, least, most = map(human_rate, cost)
    return f" A million {what} cost {usual} ({least} to {most})."


def _answers(workload: Workload) -> bool:
    """Whether text comes out, and not a vector or a score."""
    return use_case(workload.use_case).task == "generate"


def _takes(answer: Answer, best: Candidate) -> str:
    """The memory: of the device, or of its GPU and of the system's, with the layers that each
    holds."""
    device, split = answer.target.device, best.split
    room = human_bytes(device.available_bytes)
    of = f"{human_bytes(best.footprint.peak)} of {room}"
    if split is None:
        return of
    layers = (
        "the whole model" if split.whole else f"{split.gpu_layers} of {split.all_layers} layers"
    )
    gpu = f"{of} on the GPU ({layers})"
    if split.gpus:
        gpu = (
            f"{human_bytes(best.footprint.peak)} on {device.gpus} GPUs ({layers}), "
            f"{human_bytes(split.fullest.peak)} of {room} on the fullest,"
        )
    return (
        f"{gpu} and {human_bytes(split.host.peak)} of "
        f"{human_bytes(device.host_available_bytes)} of system memory"
    )


def _best(measured: Sequence[Candidate]) -> list[Candidate]:
    """Each variant that passes in its best form, best first."""
    seen: dict[str, Candidate] = {}
    for candidate in measured:
        if candidate.passes:
            seen.setdefault(candidate.variant.repo_id, candidate)
    return list(seen.values())[:_ROWS]


def _speeds(workload: Workload) -> tuple[str, str]:
    """What the two columns of speed are called."""
    return _SPEEDS[use_case(workload.use_case).task]


def _candidates(rows: Sequence[Candidate], with_reasons: bool, workload: Workload) -> None:
    rate, wait = _speeds(workload)
    columns = ["verdict", "variant", "recipe", "memory", "file", rate, wait, "quality"]
    if with_reasons:
        columns.append("why not")
    if sys.stdout.isatty() and get_terminal_size().columns < _WIDE:
        # Folded cells cannot be read; the sentence above names the chosen one, and the reasons say
        # which are rejected.
        left_out = (*_CROWDED, *((rate, wait, "quality") if with_reasons else ()))
        columns = [name for name in columns if name not in left_out]
    table = [_row(candidate, columns, workload) for candidate in rows]
    emit_table("", columns, table, right=("memory", "file", rate, wait, "quality"))


def _row(candidate: Candidate, columns: Sequence[str], workload: Workload) -> list[str]:
    memory, file, rate, wait = _figures(candidate, workload)
    rates = dict(zip(_speeds(workload), (rate, wait), strict=True))
    cells = {
        "verdict": candidate.verdict,
        "variant": candidate.variant.name,
        "recipe": candidate.recipe.id,
        "memory": memory,
        "file": file,
        **rates,
        "quality": f"{candidate.quality:.1f}" if candidate.quality is not None else "",
        "why not": "; ".join(map(str, candidate.reasons[:1] or candidate.may_miss)),
    }
    row = [cells[name] for name in columns]
    if candidate.verdict == "rejected" and sys.stdout.isatty():
        return [f"[dim]{cell}[/dim]" if cell else "" for cell in row]
    return row


def _figures(candidate: Candidate, workload: Workload) -> tuple[str, str, str, str]:
    """Memory and files, and the two speeds that `_speeds` names."""
    if not candidate.sized:
        return ("", "", "", "")
    speed, task = candidate.forecast, use_case(workload.use_case).task
    rate, wait = speed.decode_tps, speed.ttft_ms
    if task != "generate":
        rate = speed.documents_per_second(workload.prompt).value
    if task == "embed":
        wait = speed.text_ms(QUERY_TOKENS).value
    sizes = human_bytes(candidate.footprint.peak), human_bytes(candidate.artifact_bytes)
    return (*sizes, human_rate(rate), _milliseconds(wait))


def _milliseconds(value: float) -> str:
    if value < 999.5:
        return f"{value:.0f} ms"
    if value < 999_500:
        return f"{value / 1000:.3g} s"
    return f"{human_rate(value / 60000)} min"


def _misses(answer: Answer) -> None:
    if answer.misses:
        say("The nearest, and the one change that makes each fit:")
        for miss in answer.misses:
            say(f"  {miss.candidate.label}: {_lacks(miss.candidate)}.")
            say(f"      With {miss.change} it fits: {miss.flag}")
        return
    unbuilt = _unbuilt(answer.judged)
    if unbuilt:
        meet = "1 variant meets" if unbuilt == 1 else f"{unbuilt} variants meet"
        them = "it" if unbuilt == 1 else "them"
        case = answer.workload.use_case
        say(
            f"{meet} every other rule for {case}, but no runtime of {answer.target.name} builds "
            f"{them} yet."
        )
    say("No single change makes a variant fit. The nearest:")
    serving = _serving(answer.judged)
    nearest = {candidate.variant.repo_id: candidate for candidate in reversed(serving)}
    for candidate in list(reversed(nearest.values()))[:_FEW]:
        say(f"  {candidate.label}: {_lacks(candidate)}")


def _serving(judged: Sequence[Candidate]) -> Sequence[Candidate]:
    """A variant that does not take the input at all is near to nothing."""
    fed = [one for one in judged if "modality" not in {reason.rule for reason in one.reasons}]
    return fed or judged


def _unbuilt(measured: Sequence[Candidate]) -> int:
    """Variants that only wait for a runtime; none where the recipe was named, as it may be what
    cannot be built."""
    if len({candidate.recipe.id for candidate in measured}) == 1 or any(
        marks_of(candidate.recipe.id) for candidate in measured
    ):
        return 0
    built = {candidate.variant.repo_id for candidate in measured if candidate.sized}
    return len(
        {
            candidate.variant.repo_id
            for candidate in measured
            if {reason.rule for reason in candidate.reasons} == {"runtime"}
        }
        - built
    )


def _lacks(candidate: Candidate) -> str:
    return "; ".join(map(str, candidate.reasons))


def _steps(answer: Answer) -> None:
    if not answer.steps:
        say("There is no step down or up from here.")
    for step in answer.steps or ():
        scores = "".join(f", {name} {value:+g}" for name, value in step.scores.items())
        memory = f"{'+' if step.memory_bytes >= 0 else '-'}{human_bytes(abs(step.memory_bytes))}"
        say(
            f"One step {step.direction}: {step.candidate.label}: memory {memory}, "
            f"{_faster(answer, step)}{scores}."
        )
        say(
            "      It passes every rule."
            if step.candidate.passes
            else f"      Rejected: {_lacks(step.candidate)}."
        )


def _faster(answer: Answer, step: Step) -> str:
    """How much faster a neighbour is: a rate of answers means nothing where none is given."""
    rate, chosen = _speeds(answer.workload)[0], answer.chosen
    more = step.decode_tps
    if not _answers(answer.workload) and chosen is not None:
        prompt = answer.workload.prompt
        more = (step.candidate.forecast.prefill_tps - chosen.forecast.prefill_tps) / prompt
    what = "decode " if rate == "tok/s" else ""
    return f"{what}{'-' if more < 0 else '+'}{human_rate(abs(more))} {rate}"


def _instead(answer: Answer) -> None:
    """What would take the place of a variant that was named."""
    best, named = answer.instead, answer.chosen
    if best is None:
        return
    rate = _figures(best, answer.workload)[2]
    figures = [human_bytes(best.footprint.peak), f"{rate} {_speeds(answer.workload)[0]}"]
    if best.quality is not None:
        here = f" (here {named.quality:g})" if named and named.quality is not None else ""
        figures.append(f"quality {best.quality:g}{here}")
    # Who looks for another variant looks for a better one: see packager.cli.fit_answer.
    prefers = " with --prefer quality" if answer.workload.prefer == "smallest" else ""
    say(f"Of all variants, fit would choose {best.label}{prefers}: {', '.join(figures)}.")


def _hint(answer: Answer, whole: bool, words: Sequence[str]) -> str:
    if answer.chosen is None:
        count = len(answer.judged)
        return (
            f"{count} candidate{' was' if count == 1 else 's were'} "
            f"rejected{'' if whole else '; --all lists them with their reasons'}."
        )
    rejected = sum(not candidate.passes for candidate in answer.judged)
    lazy = (
        answer.workload.prefer == "smallest"
        and len({each.variant.repo_id for each in answer.judged}) > 1
    )
    unseen = ", and the recipes that were not looked at" if lazy else ""
    more = "" if whole else f"; --all lists them{unseen}"
    fitting = len(answer.judged) - rejected
    fits = (
        f"{fitting} candidate{' fits' if fitting == 1 else 's fit'}, {rejected} "
        f"{'was' if rejected == 1 else 'were'} rejected{more}."
    )
    return f"{fits} Build it: {command(('qwen-pack', 'build', '--target', *words))}"
