"""What the user adds to a recipe as options, declared once for `build` and `fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packager.cli.options import Flags

if TYPE_CHECKING:
    from packager.plan.additions import Additions

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--imatrix",
        type=_FILE,
        metavar="FILE",
        help="Importance matrix of llama-imatrix (.gguf or .dat), for gguf recipes.",
    ),
    click.option(
        "--calibration",
        type=_FILE,
        metavar="TEXT",
        help="Collect an importance matrix over this text, for gguf recipes.",
    ),
    click.option(
        "--tensor-type",
        multiple=True,
        metavar="PATTERN=TYPE",
        help="Type of the tensors that a pattern matches, e.g. attn_v=Q8_0; repeatable.",
    ),
    click.option(
        "--repack",
        is_flag=True,
        help="Take over what a quantized checkpoint stores in groups of 4 bits.",
    ),
    click.option(
        "--adapter-inputs",
        is_flag=True,
        help="Give the graph inputs for adapters (build --adapter), for onnx recipes of the CPU.",
    ),
)


def addition_options(command: _Command) -> _Command:
    """Add the options to a command; their values arrive by name and go into `additions_from`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def additions_from(flags: Flags) -> Additions:
    """The additions of the flags (others are ignored). Raises PackError (usage)."""
    # Late: only these two commands need it.
    from packager.plan.additions import parse

    return parse(
        flags.get("imatrix"),
        flags.get("calibration"),
        flags.get("tensor_type") or (),
        bool(flags.get("repack")),
        bool(flags.get("adapter_inputs")),
    )
