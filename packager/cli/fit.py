"""`qwen-pack fit`: which Qwen runs on a device, in which form, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from packager.cli.additions import addition_options, additions_from
from packager.cli.fit_answer import Answer, Wish, answer, answer_or_problem
from packager.cli.fit_json import payload_of
from packager.cli.options import MOST_TOKENS, Flags, Number, words_of, workload_options
from packager.cli.output import emit_json, json_option
from packager.cli.rate_limits import rate_limits
from packager.errors import ExitCode, usage
from packager.recipe import split_id

if TYPE_CHECKING:
    from packager.device.target import Target


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
    if not targets and together is not None:
        raise usage(
            "--with plans several models on one device, and no device is given.",
            "Write --target NAME (`qwen-pack targets` lists them).",
        )
    if not targets and model is None:
        raise usage(
            "Neither a device nor a model is given.",
            "Write --target NAME (`qwen-pack targets` lists them) or --model ID.",
        )
    rates = _Rates(tokens_per_day, max_cost_per_million, price_per_hour, watts, price_per_kwh)
    if finetune is not None:
        asked = recipe is not None or together is not None or rates != (None,) * len(rates)
        if asked or show_steps or show_all or words_of(flags):
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
        one_device = len(targets) == 1 and model is None and recipe is None
        others: Flags = {**rates._asdict(), "steps": show_steps, "all": show_all}
        return _together(targets, together, flags, others, one_device, as_json)
    wish = _wish(flags, model, recipe, (show_all, show_steps), rates)
    return _show(targets, _answers(targets, wish), wish, as_json)


def _together(
    names: tuple[str, ...], uses: str, flags: Flags, others: Flags, one_device: bool, as_json: bool
) -> int:
    """`--with`: several models on one device; `others` are flags that it takes none of."""
    from packager.cli.fit_together import show, uses_of
    from targets import registry

    use_cases = uses_of(uses, {**flags, **others}, one_device)
    return show(names[0], use_cases, flags, registry.runtimes(), as_json)


def _answers(names: tuple[str, ...], wish: Wish) -> list[Answer]:
    """What each device says, all devices where none is named. Raises PackError (usage) where no
    device is served at all."""
    from targets import registry

    if len(names) == 1:
        return [answer(registry.target(names[0]), wish)]
    devices = [registry.target(name) for name in names] or registry.targets()
    answers = [answer_or_problem(target, wish) for target in devices]
    if all(each.problem for each in answers):
        raise usage(answers[0].problem)
    return answers


def _show(names: tuple[str, ...], answers: Sequence[Answer], wish: Wish, as_json: bool) -> int:
    """Print the answers, and give the exit code: one device in full, several as a matrix."""
    if as_json:
        payloads = [payload_of(each) for each in answers]
        emit_json("fit", payloads[0] if len(names) == 1 else {"results": payloads})
    else:
        # Late: `rich` and the sentences are for people alone.
        from packager.cli import fit_tables

        if len(names) == 1:
            words = [names[0], *_words_of(wish, answers[0].target)]
            fit_tables.show_one(answers[0], wish.show_all, words)
        else:
            fit_tables.show_matrix(answers, wish.model)
    return ExitCode.DONE if any(each.chosen for each in answers) else ExitCode.NOTHING_FITS


def _words_of(wish: Wish, target: Target) -> list[str]:
    """The same question again as words of a command line, without the device."""
    words = []
    for flag, value in (("--model", wish.model), ("--recipe", wish.recipe)):
        words += [] if value is None else [flag, value]
    return [*words, *words_of(wish.flags_for(target))]


class _Rates(NamedTuple):
    """The flags that are a rate of answers, and the prices that make a rate of a cost."""

    tokens_per_day: float | None
    max_cost_per_million: float | None
    price_per_hour: float | None
    watts: float | None
    price_per_kwh: float | None

    def of_an_hour(self) -> float | None:
        """What an hour costs. Raises PackError (usage) for half a price, and for a limit without
        one."""
        if self[1:] == (None,) * 4:
            return None
        # Late: most questions are not about money.
        from packager.report.prices import Prices

        hour = Prices(self.price_per_hour, self.watts, self.price_per_kwh).of_an_hour
        if hour is None and self.price_per_kwh is not None:
            raise usage(
                "--price-per-kwh without the power makes no cost before anything is measured.",
                "Add --watts.",
            )
        if self.max_cost_per_million is not None and not hour:
            raise usage(
                "--max-cost-per-million needs a price.",
                "Add --price-per-hour, or --watts and --price-per-kwh.",
            )
        return hour


def _wish(
    flags: Flags,
    model: str | None,
    recipe: str | None,
    shown: tuple[bool, bool],
    rates: _Rates,
) -> Wish:
    """What is asked of every device. Raises PackError (usage) for a slip in it: it is one mistake,
    not one per device."""
    from packager.plan.additions import applied
    from targets import registry

    if recipe is not None:
        split_id(recipe)
    hour = rates.of_an_hour()
    # A day's tokens and a cost are both a rate: what is asked of the forecast, range and all.
    limits = rate_limits(rates.tokens_per_day, rates.max_cost_per_million, hour)
    runtimes = applied(registry.runtimes(), additions_from(flags), recipe)
    return Wish(flags, model, recipe, *shown, runtimes, limits, hour)


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
    variant = catalog.find(model) if model else None
    return finetune(targets, variant, Wish(chosen, *numbers), bool(names), as_json)
