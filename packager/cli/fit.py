"""`qwen-pack fit`: which Qwen runs on a device, in which form, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from packager.cli.additions import addition_options, additions_from
from packager.cli.fit_json import payload_of
from packager.cli.options import (
    MOST_TOKENS,
    Flags,
    Number,
    words_of,
    workload_from,
    workload_options,
)
from packager.cli.output import emit_json, json_option
from packager.cli.rate_limits import RateLimit, in_own_words, per_sequence, rate_limits
from packager.errors import ExitCode, usage
from packager.recipe import split_id

if TYPE_CHECKING:
    from packager.cli.fit_tables import Answer
    from packager.device.target import Target
    from packager.need.workload import Workload
    from packager.plan.drafts import Proposal
    from packager.runtime import Runtime
    from packager.select import Candidate, Elsewhere, Miss


@click.command("fit")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME|FILE.toml",
    help="The device; several give a matrix.",
)
@click.option(
    "--model", metavar="ID", help="Only this variant; without --target, on which targets it runs."
)
@click.option(
    "--recipe",
    metavar="R",
    help="Only this recipe, for example gguf:Q4_K_M or gguf:Q4_K_M/kv_q8_0.",
)
@addition_options
@workload_options
@click.option(
    "--all", "show_all", is_flag=True, help="List every candidate, the rejected ones too."
)
@click.option(
    "--steps",
    "show_steps",
    is_flag=True,
    help="The next variant down and up, and what each costs and gains; with --model also what "
    "would be chosen instead.",
)
@click.option(
    "--with",
    "together",
    metavar="USE,USE",
    help="Several models together in the memory of one device, e.g. embed,rerank,chat.",
)
@click.option(
    "--price-per-hour",
    type=Number(0, 1e9),
    metavar="X",
    help="What an hour of the machine costs: shows the cost of a million tokens.",
)
@click.option(
    "--watts",
    type=Number(0, 1e6),
    metavar="W",
    help="Watts that the machine draws at work; needs --price-per-kwh.",
)
@click.option(
    "--price-per-kwh",
    type=Number(0, 1e9),
    metavar="P",
    help="What a kilowatt-hour costs; needs --watts.",
)
@click.option(
    "--max-cost-per-million",
    type=Number(1e-9, 1e9),
    metavar="X",
    help="The most that a million tokens of answers may cost.",
)
@click.option(
    "--tokens-per-day",
    type=Number(1, 1e15),
    metavar="N",
    help="Tokens of answers that must be done in a day, all sequences together.",
)
@click.option(
    "--finetune",
    type=click.Choice(["lora", "lora-emb", "qlora", "full"]),
    help="Show which models can be fine-tuned on the device, and the memory that this takes.",
)
@click.option(
    "--sequence",
    type=Number(16, MOST_TOKENS, whole=True),
    help="With --finetune: tokens of one sequence; 2048 if not given.",
)
@click.option(
    "--batch",
    type=Number(1, 4096, whole=True),
    help="With --finetune: sequences at a time on each GPU; 1 if not given.",
)
@click.option(
    "--gpus",
    type=Number(1, 64, whole=True),
    help="With --finetune: the number of GPUs; as many as the device has if not given.",
)
@json_option
def command(
    targets: tuple[str, ...],
    model: str | None,
    recipe: str | None,
    show_all: bool,
    show_steps: bool,
    together: str | None,
    price_per_hour: float | None,
    watts: float | None,
    price_per_kwh: float | None,
    max_cost_per_million: float | None,
    tokens_per_day: float | None,
    finetune: str | None,
    sequence: int | None,
    batch: int | None,
    gpus: int | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """Which Qwen runs on a device, in which form, and why; nothing is downloaded.

    \b
    qwen-pack fit --target laptop-cpu
    qwen-pack fit --target raspberry-pi-5-8gb --use-case code --prefer quality --steps
    qwen-pack fit --model Qwen3-4B                     on which targets it runs
    qwen-pack fit --target laptop-cpu --target raspberry-pi-5-8gb
    qwen-pack fit --target laptop-cpu --with embed,rerank,chat
    qwen-pack fit --target rtx-4090 --price-per-hour 0.35 --max-cost-per-million 2
    qwen-pack fit --target rtx-4090 --finetune qlora   what can be trained there

    Exit code 3 when nothing fits; then the nearest misses say what would change that.
    """
    if not targets and model is None:
        raise usage(
            "Neither a device nor a model is given.",
            "Write --target NAME (`qwen-pack targets` lists them) or --model ID.",
        )
    from packager.cli import fit_tables
    from packager.plan.additions import applied
    from targets import registry

    if finetune is not None:
        if (
            recipe is not None
            or show_steps
            or words_of(flags)
            or max_cost_per_million
            or tokens_per_day
        ):
            raise usage(
                "--finetune goes with --target, --model, --sequence, --batch and --gpus only."
            )
        return _finetune(targets, model, finetune, (sequence or 2048, batch or 1, gpus), as_json)
    if sequence or batch or gpus:
        raise usage(
            "--sequence, --batch and --gpus say how a model is trained.",
            "Add --finetune lora, lora-emb, qlora or full. For answers there are --parallel, and "
            "devices with several GPUs, such as rtx-3090-x2.",
        )
    if together is not None:
        from packager.cli.fit_together import show, uses_of

        names = uses_of(together, flags, len(targets) == 1 and model is None and recipe is None)
        return show(registry.target(targets[0]), names, flags, registry.runtimes(), as_json)
    if recipe is not None:
        # A slip in it is one mistake, not one per target.
        split_id(recipe)
    hour = _of_an_hour(price_per_hour, watts, price_per_kwh, max_cost_per_million)
    single = len(targets) == 1
    devices = [registry.target(name) for name in targets] or list(registry.targets())
    # A day's tokens and a cost are both a rate: what is asked of the forecast, range and all.
    limits = rate_limits(tokens_per_day, max_cost_per_million, hour)
    runtimes = applied(registry.runtimes(), additions_from(flags), recipe)
    wish = _Wish(flags, model, recipe, show_all, show_steps, runtimes, limits, hour)
    if single:
        answers = [_answer(devices[0], wish)]
    else:
        answers = [_answer_or_problem(target, wish) for target in devices]
        if all(answer.problem for answer in answers):
            raise usage(answers[0].problem)
    if as_json:
        emit_json(
            "fit",
            payload_of(answers[0])
            if single
            else {"results": [payload_of(answer) for answer in answers]},
        )
    elif single:
        chosen = {"--model": model, "--recipe": recipe}
        words = [
            targets[0],
            *(
                word
                for flag, value in chosen.items()
                if value is not None
                for word in (flag, value)
            ),
            *words_of(_flags(wish, devices[0])),
        ]
        fit_tables.show_one(answers[0], show_all, words)
    else:
        fit_tables.show_matrix(answers, model)
    return ExitCode.DONE if any(answer.chosen for answer in answers) else ExitCode.NOTHING_FITS


def _finetune(
    names: tuple[str, ...],
    model: str | None,
    method: str,
    numbers: tuple[int, int, int | None],
    as_json: bool,
) -> int:
    from packager import catalog
    from packager.cli.finetune import Wish, finetune
    from packager.predict.finetuning import METHODS
    from targets import registry

    chosen = next(known for known in METHODS if known == method)
    targets = [registry.target(name) for name in names] or list(registry.targets())
    return finetune(
        targets, catalog.find(model) if model else None, Wish(chosen, *numbers), as_json
    )


class _Wish(NamedTuple):
    """What was asked, the targets aside."""

    flags: Flags
    model: str | None
    recipe: str | None
    show_all: bool
    show_steps: bool
    runtimes: tuple[Runtime, ...]
    limits: tuple[RateLimit, ...] = ()
    price_of_hour: float | None = None


def _of_an_hour(
    per_hour: float | None, watts: float | None, per_kwh: float | None, limit: float | None
) -> float | None:
    """What an hour costs. Raises PackError (usage) for half a price, and for a limit without
    one."""
    from packager.report.prices import Prices

    hour = Prices(per_hour, watts, per_kwh).of_an_hour
    if hour is None and per_kwh is not None:
        raise usage(
            "--price-per-kwh without the power makes no cost before anything is measured.",
            "Add --watts.",
        )
    if limit is not None and not hour:
        raise usage(
            "--max-cost-per-million needs a price.",
            "Add --price-per-hour, or --watts and --price-per-kwh.",
        )
    return hour


def _flags(wish: _Wish, target: Target) -> Flags:
    """The flags, with the rate that a cost or a day's tokens ask of each sequence where that is
    more than is asked anyway."""
    workload = workload_from(wish.flags, target, wish.model)
    each = per_sequence(wish.limits, workload.parallel)
    return (
        {**wish.flags, "min_decode_tps": each}
        if each > (workload.min_decode_tps or 0.0)
        else wish.flags
    )


def _answer(target: Target, wish: _Wish, with_misses: bool = True) -> Answer:
    """What one target says. Raises PackError (usage) where it is not served at all."""
    from packager import catalog
    from packager.cli.fit_tables import Answer
    from packager.plan.drafts import proposals
    from packager.select import candidates, choose, elsewhere, larger_than, nearest_misses, steps
    from targets import registry

    workload, runtimes, named = (
        workload_from(_flags(wish, target), target, wish.model),
        wish.runtimes,
        wish.model is not None,
    )
    variants = (catalog.find(wish.model),) if wish.model is not None else catalog.load()
    measured = candidates(
        target,
        workload,
        variants,
        runtimes,
        recipe=wish.recipe,
        named=named,
        every=wish.show_all or named,
    )
    chosen = choose(measured)
    misses: tuple[Miss, ...] = ()
    other_machine: Elsewhere | None = None
    if chosen is None and with_misses:
        larger = tuple(
            larger_than(
                target,
                registry.targets(),
                lambda other: workload_from(_flags(wish, other), other, wish.model),
            )
        )
        misses = in_own_words(
            nearest_misses(target, workload, measured, runtimes, larger=larger, named=named),
            wish.limits,
            workload.parallel,
            workload_from(wish.flags, target, wish.model).min_decode_tps or 0.0,
        )
        other_machine = elsewhere(target, measured, larger, runtimes, named=named)
    drafts: tuple[Proposal, ...] = ()
    if chosen is not None and with_misses:
        drafts = proposals(target, workload, chosen, catalog.load(), runtimes)
    return Answer(
        target,
        workload,
        measured,
        chosen,
        misses,
        steps(measured) if wish.show_steps else None,
        drafts=drafts,
        elsewhere=other_machine,
        hour=wish.price_of_hour,
        instead=_instead(target, workload, wish) if wish.show_steps and named else None,
    )


def _instead(target: Target, workload: Workload, wish: _Wish) -> Candidate | None:
    """What would be chosen of the whole catalogue for the same need; None where that is the variant
    that was named, or nothing.

    Who moves from one variant to another looks for a better one: the smallest that passes is no
    answer to that.
    """
    from packager import catalog
    from packager.select import candidates, choose

    prefer = "quality" if workload.prefer == "smallest" else workload.prefer
    best = choose(
        candidates(
            target, replace(workload, prefer=prefer), catalog.load(), wish.runtimes, named=False
        )
    )
    same = best is not None and wish.model is not None and best.variant == catalog.find(wish.model)
    return None if same else best


def _answer_or_problem(target: Target, wish: _Wish) -> Answer:
    """For a matrix: a target that is not served is a row, not the end."""
    from packager.cli.fit_tables import Answer
    from packager.errors import PackError

    try:
        return _answer(target, wish, with_misses=False)
    except PackError as error:
        return Answer(
            target, workload_from(wish.flags, target, wish.model), (), None, (), None, str(error)
        )
