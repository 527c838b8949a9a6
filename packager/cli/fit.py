"""`qwen-pack fit`: which Qwen runs on a device, in which form, and why."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from packager.cli.additions import addition_options, additions_from
from packager.cli.options import words_of, workload_from, workload_options
from packager.cli.output import emit_json, json_option
from packager.errors import ExitCode, usage
from packager.recipe import split_id

if TYPE_CHECKING:
    from packager.cli.fit_tables import Answer
    from packager.device.target import Target
    from packager.runtime import Runtime
    from packager.select import Miss


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
    help="The next variant down and up, and what each costs and gains.",
)
@json_option
def command(
    targets: tuple[str, ...],
    model: str | None,
    recipe: str | None,
    show_all: bool,
    show_steps: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Which Qwen runs on a device, in which form, and why; nothing is downloaded.

    \b
    qwen-pack fit --target laptop-cpu
    qwen-pack fit --target raspberry-pi-5-8gb --use-case code --prefer quality --steps
    qwen-pack fit --model Qwen3-4B                     on which targets it runs
    qwen-pack fit --target laptop-cpu --target raspberry-pi-5-8gb

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

    if recipe is not None:
        # A slip in it is one mistake, not one per target.
        split_id(recipe)
    single = len(targets) == 1
    found = [registry.target(name) for name in targets] or list(registry.targets())
    wish = _Wish(
        flags,
        model,
        recipe,
        show_all,
        show_steps,
        applied(registry.runtimes(), additions_from(flags), recipe),
    )
    if single:
        answers = [_answer(found[0], wish)]
    else:
        answers = [_answer_or_problem(target, wish) for target in found]
        if all(answer.problem for answer in answers):
            raise usage(answers[0].problem)
    if as_json:
        emit_json(
            "fit",
            _payload(answers[0])
            if single
            else {"results": [_payload(answer) for answer in answers]},
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
            *words_of(flags),
        ]
        fit_tables.show_one(answers[0], show_all, words)
    else:
        fit_tables.show_matrix(answers, model)
    return ExitCode.DONE if any(answer.chosen for answer in answers) else ExitCode.NOTHING_FITS


class _Wish(NamedTuple):
    """What was asked, the targets aside."""

    flags: dict[str, Any]
    model: str | None
    recipe: str | None
    show_all: bool
    show_steps: bool
    runtimes: tuple[Runtime, ...]


def _answer(target: Target, wish: _Wish, with_misses: bool = True) -> Answer:
    """What one target says. Raises PackError (usage) where it is not served at all."""
    from packager import catalog
    from packager.cli.fit_tables import Answer
    from packager.select import candidates, choose, larger_than, nearest_misses, steps
    from targets import registry

    workload, runtimes, named = (
        workload_from(wish.flags, target, wish.model),
        wish.runtimes,
        wish.model is not None,
    )
    variants = (catalog.find(wish.model),) if wish.model is not None else catalog.load()
    found = candidates(
        target,
        workload,
        variants,
        runtimes,
        recipe=wish.recipe,
        named=named,
        every=wish.show_all or named,
    )
    chosen = choose(found)
    misses: tuple[Miss, ...] = ()
    if chosen is None and with_misses:
        larger = tuple(
            larger_than(
                target, registry.targets(), partial(workload_from, wish.flags, model=wish.model)
            )
        )
        misses = nearest_misses(target, workload, found, runtimes, larger=larger, named=named)
    return Answer(
        target, workload, found, chosen, misses, steps(found) if wish.show_steps else None
    )


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


def _payload(answer: Answer) -> dict[str, Any]:
    """The fields of the contract for one target."""
    payload: dict[str, Any] = {
        "target": answer.target.name,
        "workload": answer.workload.as_dict(),
        "chosen": answer.chosen.as_dict() if answer.chosen else None,
        "candidates": [candidate.as_dict() for candidate in answer.found],
    }
    if answer.problem:
        payload["problem"] = answer.problem
    elif answer.chosen is None:
        payload["nearest_misses"] = [miss.as_dict() for miss in answer.misses]
    if answer.steps is not None:
        payload["steps"] = [step.as_dict() for step in answer.steps]
    return payload
