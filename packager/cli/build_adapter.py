"""`qwen-pack build --adapter`: an adapter package for a finished one."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from packager.cli.output import emit_json, narrate, say
from packager.cli.quality import show_quality
from packager.errors import ExitCode, PackError, usage
from packager.quality.gate import Gate

_TAKEN = (
    "adapter",
    "base",
    "weights",
    "out",
    "quality_text",
    "quality_tokens",
    "allow_quality_loss",
    "offline",
    "version",
    "as_json",
)


def build_adapter(
    adapter: str | None,
    base: Path | None,
    weights: str,
    out: Path | None,
    gate: Gate,
    version: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Build it and say what it lost. Raises PackError (usage) for options that mean nothing here:
    the base has fixed them."""
    from packager.cli.progress import follow
    from packager.package import manifest
    from packager.pipeline import adapter_package
    from targets import registry

    if adapter is None or base is None:
        raise usage(
            "--adapter and --base belong together.",
            "Write --adapter DIR --base PACKAGE; --lora merges an adapter into a new package.",
        )
    _refuse_more(click.get_current_context())
    if weights == "dummy":
        raise usage(
            "An adapter is measured against real weights, not --weights dummy.",
            "Name the checkpoint of the base.",
        )
    runtime = registry.runtime(manifest.read(base).contents.runtime.name)
    plan = adapter_package.make_plan(
        base,
        adapter,
        runtime,
        weights=None if weights == "hub" else Path(weights),
        out=out,
        gate=gate,
        version=version,
        offline=offline,
    )
    narrate(f"{plan.name}: for {plan.known.name}")
    try:
        package = follow(adapter_package.run(plan))
    except KeyboardInterrupt:
        raise PackError(
            "Interrupted: nothing was written.", "Run the same command again.", ExitCode.INTERRUPTED
        ) from None
    if as_json:
        emit_json("build", {"package": str(package.path), "manifest": package.manifest.data})
        return ExitCode.DONE
    show_quality(package.contents.quality)
    say(f"Package: {package.path}")
    return ExitCode.DONE


def _refuse_more(context: click.Context) -> None:
    given = [
        option
        for option in context.command.params
        if option.name is not None
        and option.name not in _TAKEN
        and context.get_parameter_source(option.name)
        not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)
    ]
    if given:
        raise usage(
            f"{given[0].opts[0]} means nothing with --adapter: the base package has fixed it.",
            "Leave it out.",
        )
