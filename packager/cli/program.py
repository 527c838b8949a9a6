"""The program behind the command line: its commands by name, and the one place where an exception
becomes a sentence and an exit code."""

from __future__ import annotations

import gc
import io
import sys
from typing import Any

import click

from packager import __version__
from packager.cli.output import narrate
from packager.cli.surroundings import prepared, silence
from packager.errors import ExitCode, PackError, from_foreign

COMMANDS = {
    "build": "Choose, fetch, convert, measure and package for a target.",
    "adopt": "Look at a model that somebody else converted, and package it as it is.",
    "attest": "Does a GGUF follow from a checkpoint with a recipe?",
    "sweep": "Run, resume and report a matrix of builds from a plan file.",
    "route": "Export the packages of a sweep's routing table, with a server that chooses.",
    "fit": "Which Qwen runs on a device, in which form, and why.",
    "targets": "The devices that are known, or one in full.",
    "models": "The Qwen variants that are known, or one in full.",
    "probe": "This machine, as a device: memory, instruction set, speed.",
    "bench": "Measure a package again, and compare with its manifest.",
    "lab": "Other machines to measure on: their names, what they are, what is kept there.",
    "agent": "The program that runs a model on a device, for bench --on.",
    "run": "Answer one prompt with a package.",
    "embed": "Turn texts into vectors with an embedding package.",
    "rerank": "Rank documents by their relevance to a query.",
    "serve": "Answer over HTTP with a package, in OpenAI's form.",
    "verify": "Check a package against its manifest, byte by byte.",
    "behave": "Check a package's answers, and count failures by kind.",
    "compare": "Compare packages: figures, Pareto front, cost.",
    "shelf": "List the packages that were built; --remove deletes one.",
    "export": "Export a package for a store, a registry or a device.",
    "keys": "Key pairs for signatures.",
    "push": "Push a package to an OCI registry, as CNCF ModelPack.",
    "pull": "Pull a package from an OCI registry, every byte compared.",
    "unpack": "Turn an exported archive back into a package, every byte compared.",
    "delta": "Write a patch from an old package to a new one.",
    "patch": "Apply a patch to an old package: exactly the new one, or nothing.",
    "tui": "The walkthrough from a device to a package, in the terminal.",
    "doctor": "Which engines are installed, and how to add one.",
    "cache": "What the build cache holds; --clear empties it.",
}


_BRIEF = ("fit", "models", "targets")
"""Commands that end within a second and hold no weights: looking for garbage in cycles every 700
objects, Python's default, took an eighth of `fit`."""
_OBJECTS = 100_000
"""New objects after which such a command looks for it."""


class Commands(click.Group):
    """The commands by name; a module is imported only when its command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, from the module of that name."""
        if name not in COMMANDS:
            return None
        from importlib import import_module

        if name in _BRIEF:
            gc.set_threshold(_OBJECTS)
        command: click.Command = import_module(f"packager.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Add "did you mean" to click's own refusal."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from packager.names import did_you_mean

            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader who goes away (`qwen-pack models | head`) is no error, of which
        click would make exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence(sys.stdout, sys.stderr)
            return ExitCode.DONE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="qwen-pack")
def app() -> None:
    """From a device and a need to a measured Qwen package.

    \b
    qwen-pack fit   --target laptop-cpu        what would run there, and why
    qwen-pack build --target laptop-cpu        fetch, convert, measure, package
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the only place where an exception becomes a sentence and an exit code."""
    thresholds = gc.get_threshold()
    with prepared() as interruption:
        try:
            result = app.main(args=arguments, prog_name="qwen-pack", standalone_mode=False)
            code = int(result) if isinstance(result, int) else ExitCode.DONE
            if interruption.came and code == ExitCode.DONE:
                # It came when nothing was left to do, or where Python lets no exception through.
                _complain("Interrupted after everything was done.")
                return ExitCode.INTERRUPTED
            return code
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return ExitCode.USAGE
        except click.ClickException as error:
            complaint = io.StringIO()
            error.show(file=complaint)
            narrate(complaint.getvalue().rstrip("\n"))
            return ExitCode.USAGE
        except (KeyboardInterrupt, click.Abort):
            _forget_the_interruption()
            _complain("Interrupted.")
            return ExitCode.INTERRUPTED
        except Exception as error:
            known = from_foreign(error)
            if known is None and interruption.came and _of_interruption(error):
                _forget_the_interruption()
                _complain("Interrupted.")
                return ExitCode.INTERRUPTED
            if known is None:
                raise
            if known.exit_code == ExitCode.INTERRUPTED:
                _forget_the_interruption()
            _complain(known.message, known.hint)
            return known.exit_code
        finally:
            if gc.get_threshold() != thresholds:
                # What a brief command made is not looked through at its end, which took a fifth of
                # its time. Only a caller that goes on gets the objects back.
                gc.freeze()
                if arguments is not None:
                    gc.unfreeze()
            gc.set_threshold(*thresholds)


def _of_interruption(error: BaseException) -> bool:
    """Whether Python made the error of an interruption: what comes while a class gets its members
    is a RuntimeError until Python 3.12 (`__set_name__`), and imports make classes."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or _of_interruption(cause))


def _forget_the_interruption() -> None:
    """Let the exit code be the one that we return.

    Where an interruption comes while Python evaluates a text, as for every dataclass, it remembers
    that, and kills itself with SIGINT at its end whoever caught it; the next text makes it forget
    (run_eval_code_obj in CPython's pythonrun.c).
    """
    exec("")


def _complain(message: str, hint: str = "") -> None:
    """One error on stderr; the word stands first so that colour carries nothing alone."""
    narrate(message, click.style("Error: ", fg="red", bold=True))
    if hint:
        narrate(f"       {hint}")


__all__ = ["COMMANDS", "PackError", "app", "main"]
