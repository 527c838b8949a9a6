"""`qwen-pack adopt`: what is this model that somebody else converted, and a package of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packager.cli.output import emit_json, emit_table, json_option, say
from packager.errors import ExitCode, usage

if TYPE_CHECKING:
    from packager.json_values import JsonObject
    from packager.plan.adoption import Recognised


@click.command("adopt", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("model", metavar="FILE.gguf|FOLDER|OWNER/NAME")
@click.option("--target", metavar="NAME|FILE.toml", help="Package it for this device.")
@click.option(
    "--model", "--variant", "variant", metavar="ID", help="The variant that it was made from."
)
@click.option(
    "--hub-file",
    metavar="NAME.gguf|FOLDER/",
    help="Of a repository of the hub: the file to take, or the folder; ./ is the repository's own.",
)
@click.option("--revision", metavar="SHA", help="Commit, tag or branch of that repository.")
@click.option("--offline", is_flag=True, help="Use what the hub's cache holds.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: str,
    target: str | None,
    variant: str | None,
    hub_file: str | None,
    revision: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Look at a model that somebody else has converted; with --target, package it as it is.

    \b
    qwen-pack adopt Qwen3-0.6B-Q4_K_M.gguf                         what it is, nothing is written
    qwen-pack adopt Qwen3-0.6B-Q4_K_M.gguf --target laptop-cpu     measured, gated, packaged
    qwen-pack adopt my.gguf --target laptop-cpu --against ./checkpoint    and what it has lost
    qwen-pack adopt ./Qwen3-0.6B-int4-ov                           for OpenVINO or ONNX Runtime
    qwen-pack adopt me/my-int4-ov --hub-file ./                    a folder as it is on the hub

    With --target it takes every option of `build`; --against and --tokenizer say what it is held
    against.
    """
    given = [
        *(["--revision", revision] if revision else []),
        *(["--offline"] if offline else []),
        *(["--json"] if as_json else []),
    ]
    if hub_file is not None and variant is not None:
        raise usage(
            "With --hub-file the repository is named, and the variant is told from the file.",
            "Leave --variant out.",
        )
    if target is not None:
        from packager.cli.build import command as build

        if hub_file is None:
            named = ["--weights", model, *([] if variant is None else ["--model", variant])]
        else:
            named = ["--model", model, "--hub-file", hub_file]
        arguments = ["--target", target, *named, *given, *context.args]
        result: Any = build.main(arguments, prog_name="qwen-pack adopt", standalone_mode=False)
        return int(result or 0)
    if context.args:
        raise usage(
            f"{context.args[0]} is for a package, and no --target was named.",
            "Name the device with --target, or leave it out.",
        )
    from packager.files import expanded
    from packager.plan.adoption import adoptable, recognise
    from targets import registry

    origin = None
    if hub_file is not None:
        from packager.cli.adoption import file_of_hub

        origin = file_of_hub(model, hub_file, "hub", revision, offline)
        model = str(origin.path)
    converted = adoptable(model, registry.runtimes())
    if converted is None and not expanded(model).exists():
        raise usage(
            f"There is no file or folder {model!r}.",
            "Check the path; of the hub's repository, say which file with --hub-file.",
        )
    if converted is None:
        raise usage(
            f"{model!r} is not a model that was converted already.",
            "Name a .gguf file or its folder; of the hub's repository, say which with --hub-file.",
        )
    known = recognise(converted, variant, origin=origin)
    described = _described(known)
    if as_json:
        emit_json("adopt", {**known.as_dict(), **described})
    else:
        _show(known, described)
    return ExitCode.DONE


def _described(known: Recognised) -> JsonObject:
    """What the file's own texts say, looked at in a child process: its template in the sandbox."""
    from contextlib import closing

    from packager.process import run_job
    from packager.scratch import temporary_folder

    model = known.model
    files = [str(path) for path in model.files]
    with temporary_folder() as scratch:
        arguments = {"files": files, "out": str(scratch / "out")}
        with closing(run_job(model.describe, arguments, scratch / "log")) as work:
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    said: JsonObject = stop.value.value
                    break
    size = sum(path.stat().st_size for path in model.files)
    shape = model.shape
    return {
        "name": model.name,
        "files": [path.name for path in model.files],
        "bytes": size,
        "architecture": said["architecture"],
        "parameters": shape.parameters(),
        "bits_per_weight": said["bits_per_weight"],
        "context": shape.context,
        "vocabulary": shape.vocab,
        "template": said["template"],
        "ends": said["ends"],
    }


def _show(known: Recognised, described: JsonObject) -> None:
    from packager.json_values import at, texts_at
    from packager.units import human_bytes, human_count

    model, says = known.model, known.model.says
    types = ", ".join(f"{count} {kind}" for kind, count in model.types.items())
    rows = [
        ("files", ", ".join(texts_at(described, "files"))),
        ("size", human_bytes(at(described, "bytes", int))),
        ("architecture", str(described["architecture"])),
        ("parameters", human_count(at(described, "parameters", int))),
        ("recipe", f"{model.recipe.id}: {model.recipe.summary}"),
        ("types", types),
        ("bits per weight", f"{at(described, 'bits_per_weight', float):.2f}"),
        ("context", f"{described['context']} tokens"),
        ("chat template", "yes" if described["template"] else "none"),
        ("ends a turn at", ", ".join(texts_at(described, "ends"))),
        *((f"says: {key}", str(value)) for key, value in says.items()),
    ]
    if len(known.alike) > 1:
        rows.append(("of that shape", ", ".join(known.alike)))
    emit_table("", ("", ""), rows)
    say(known.sentence())
