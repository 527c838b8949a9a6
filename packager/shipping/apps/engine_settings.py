"""How the engine of a package is started, as its manifest says: only settings that are known to be
harmless go into an export.

A manifest comes from outside, and a variable of a process or a flag of a command can do anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packager.errors import bad_input
from packager.escapes import Safe
from packager.records.contents import Engine, EngineSettings

_FLAGS = {"llama.cpp": {"--no-repack"}}
_VARIABLES = {
    "llama.cpp": {"LLAMA_ARG_REPACK": re.compile("0")},
    "openvino": {"ONEDNN_MAX_CPU_ISA": re.compile("[A-Z][A-Z0-9_]{2,40}")},
}
_OPTIONS = {"onnxruntime": {"session.disable_prepacking": re.compile("1")}}


@dataclass(frozen=True, slots=True)
class EngineStart:
    """Flags, variables and options of the engine, empty where it runs as it comes (`plain`)."""

    flags: tuple[Safe, ...]
    variables: tuple[tuple[Safe, Safe], ...]
    options: tuple[tuple[Safe, Safe], ...]
    plain: bool

    def values(self) -> dict[str, object]:
        """What a template is given."""
        return {
            "engine_flags": self.flags,
            "engine_variables": self.variables,
            "engine_options": self.options,
            "plain_start": self.plain,
        }


def engine_start(engine: Engine) -> EngineStart:
    """How the engine of a manifest is started.

    Raises PackError (bad input) for a setting that is not known to be harmless.
    """
    settings = engine.settings or EngineSettings()
    unknown = [flag for flag in settings.flags if flag not in _FLAGS.get(engine.name, ())]
    variables = _allowed(settings.variables or {}, _VARIABLES.get(engine.name, {}), unknown)
    options = (
        _allowed(settings.options or {}, _OPTIONS.get(engine.name, {}), unknown)
        if engine.name == "onnxruntime"
        else {}
    )
    if unknown:
        raise bad_input(
            f"The manifest starts {engine.name} with {unknown[0]!r}, which is not known here.",
            "Build the package again.",
        )
    return EngineStart(
        tuple(map(Safe, settings.flags)),
        tuple((Safe(name), Safe(value)) for name, value in variables.items()),
        tuple((Safe(name), Safe(value)) for name, value in options.items()),
        settings == EngineSettings(),
    )


def _allowed(
    given: Mapping[str, str], known: Mapping[str, re.Pattern[str]], unknown: list[str]
) -> dict[str, str]:
    unknown += [
        name
        for name, value in given.items()
        if name not in known or not known[name].fullmatch(value)
    ]
    return {name: value for name, value in given.items() if name not in unknown}
