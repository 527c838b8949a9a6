"""`qwen-pack targets`: the devices that are known, one in full, and files of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from packager.cli.output import emit_json, emit_table, json_option, say
from packager.json_values import JsonValue, object_at

if TYPE_CHECKING:
    from packager.device.target import Target


class NameOrWord(click.Group):
    """A group whose first word may also be a name, or missing: both go to `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word `show` in front of everything that is no subcommand and no plea for help."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    "targets",
    cls=NameOrWord,
    subcommand_metavar="[NAME|FILE.toml] [--json] | check FILE | new NAME --from NAME",
)
def command() -> None:
    """The devices that are known, or one in full; `check` and `new` are for your own files.

    \b
    qwen-pack targets                              list all of them
    qwen-pack targets raspberry-pi-5-8gb           one, with the source of every number
    qwen-pack targets new mine --from laptop-cpu   write mine.toml, to be changed
    qwen-pack targets check mine.toml              every problem with its line
    """


@command.command("show", hidden=True)
@click.argument("name", required=False)
@json_option
def show(name: str | None, as_json: bool) -> None:
    """List all, or show NAME (a built-in name or a file) in full."""
    from targets.registry import target, targets

    shown = (target(name),) if name else targets()
    if as_json:
        emit_json("targets", {"targets": [each.as_dict() for each in shown]})
    elif name:
        _in_full(shown[0])
    else:
        _list(shown)


@command.command("check")
@click.argument("file", type=click.Path())
@json_option
def check(file: str, as_json: bool) -> int:
    """Check a device file: unknown keys, wrong units, missing sources, another device's name, each
    with its line.

    Values that `targets new` has copied and that still have their mark are counted.
    """
    from pathlib import Path

    from packager.errors import ExitCode, PackError
    from targets.devices.device_copy import copied_lines
    from targets.devices.device_file import BadDeviceFile

    try:
        _refuse_problems(file)
    except PackError as error:
        if not as_json:
            raise
        # What is not text at all is wrong from its first line.
        problems = error.problems if isinstance(error, BadDeviceFile) else [(1, error.message)]
        emit_json(
            "targets-check",
            {"file": file, "problems": [{"line": line, "text": text} for line, text in problems]},
        )
        return ExitCode.USAGE
    copied = copied_lines(Path(file).read_text(encoding="utf-8-sig"))
    if as_json:
        emit_json("targets-check", {"file": file, "problems": [], "copied": copied})
        return ExitCode.DONE
    say(f"{file}: no problems.")
    if copied:
        say(
            f"{len(copied)} values are still marked as copied from another device (line "
            f"{copied[0]} is the first). Check each, then remove its mark.",
            err=True,
        )
    return ExitCode.DONE


def _refuse_problems(file: str) -> None:
    """Raises PackError (usage) for a file with problems. A `known_by` that another device has is
    one of them, and so is what `fit` would refuse."""
    from pathlib import Path

    from targets.devices.device_copy import mistaken
    from targets.devices.device_file import BadDeviceFile, read_target
    from targets.devices.toml_lines import lines_of_keys
    from targets.registry import nameable_runtimes, targets

    read = read_target(Path(file), nameable_runtimes())
    problems = dict(_refused_by_fit(read))
    why = mistaken(read, targets())
    if why is not None:
        problems["device.known_by"] = f"known_by {why}"
    if problems:
        lines = lines_of_keys(Path(file).read_text(encoding="utf-8-sig"))
        raise BadDeviceFile(
            Path(file).name, sorted((lines.get(key, 1), text) for key, text in problems.items())
        )


def _refused_by_fit(read: Target) -> Iterator[tuple[str, str]]:
    """Keys and what is wrong with them: recipes that their runtimes do not have, and defaults that
    contradict each other."""
    from packager.errors import PackError
    from packager.need.workload import merge
    from packager.recipe import split_id
    from targets.registry import runtimes

    by_prefix = {runtime.prefix: runtime for runtime in runtimes()}
    for recipe in read.recipes:
        try:
            prefix, weights, kv = split_id(recipe)
            if prefix in by_prefix:
                by_prefix[prefix].recipe(weights, kv)
        except PackError as error:
            yield "target.recipes", f"target.recipes has {recipe!r}: {error.message}"
    try:
        merge({}, read.workload)
    except PackError as error:
        yield "workload.use_case", f"workload contradicts itself: {error.message}"


@command.command("new")
@click.argument("name")
@click.option(
    "--from", "source", required=True, metavar="NAME|FILE.toml", help="The device to start from."
)
@json_option
def new(name: str, source: str, as_json: bool) -> None:
    """Write NAME.toml here, a copy of another device to be changed; what was copied is marked."""
    from pathlib import Path

    from packager.errors import usage
    from targets.devices.device_copy import marked
    from targets.devices.device_write import new_file, renamed
    from targets.registry import DEVICES, target

    origin = target(source)
    own = source.endswith(".toml")
    # An older name of a device is not that of its file.
    path = Path(source) if own else DEVICES / f"{origin.name}.toml"
    if not own and not path.is_file():
        raise usage(
            f"{source} has no device file to copy: it was measured.",
            f"`qwen-pack probe --save {name}` writes the file of a machine that is measured.",
        )
    text = marked(renamed(path.read_text(encoding="utf-8"), name), origin.name)
    written = new_file(name, text, Path.cwd())
    if as_json:
        emit_json("targets-new", {"file": str(written), "from": origin.name})
    else:
        say(str(written))
        say(
            f"A copy of {origin.name}. Replace every value marked '# copied from {origin.name}', "
            f"then: qwen-pack targets check {written.name}",
            err=True,
        )


def _list(targets: tuple[Target, ...]) -> None:
    from packager.units import human_bytes

    emit_table(
        "",
        ("name", "kind", "for a model", "bandwidth", "compute", "speed is", "runtimes"),
        [
            (
                each.name,
                each.kind,
                _room(each),
                f"{human_bytes(each.device.bandwidth)}/s",
                _flops(each.device.compute),
                each.device.confidence,
                ", ".join(each.runtimes),
            )
            for each in targets
        ],
        right=("for a model", "bandwidth", "compute"),
    )


def _in_full(one: Target) -> None:
    """Every fact with its source; numbers as people read them."""
    from packager.need.languages import in_words

    say(f"{one.name}: {one.summary}\n")
    for key, value in object_at(one.as_dict(), "device").items():
        if value in (None, "", 0, (), {}) or (key == "gpus" and value == 1):
            continue
        say(f"  {key:18} {_in_words(key, value)}")
        if key in one.device.sources:
            say(f"  {'':18}   {one.device.sources[key]}")
    say(f"\n  {'for a model':18} {_room(one)}")
    say(f"  {'runtimes':18} {', '.join(one.runtimes)}")
    if one.recipes:
        say(f"  {'preferred recipes':18} {', '.join(one.recipes)}")
    say(
        f"  {'asked by default':18} {one.workload.use_case}{in_words(one.workload.languages)}, "
        f"{one.workload.context} tokens"
    )


def _in_words(key: str, value: JsonValue) -> str:
    """A fact of a device as people read it."""
    from packager.units import human_bytes

    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("_bytes"):
            return human_bytes(value)
        if key.endswith("bandwidth"):
            return f"{human_bytes(value)}/s"
        if key in ("compute", "host_compute", "npu_ops"):
            return _flops(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _room(one: Target) -> str:
    """What a model may take: of each GPU where there are several."""
    from packager.units import human_bytes

    room = human_bytes(one.device.available_bytes)
    return room if one.device.gpus == 1 else f"{one.device.gpus} x {room}"


def _flops(rate: float) -> str:
    """Operations per second: 370e9 -> "370 GFLOP/s"."""
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
