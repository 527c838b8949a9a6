"""How the engine of a package is started, as its manifest says: only settings that are known to be
harmless go into an export.

A manifest comes from outside, and a variable of a process or a flag of a command can do anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from packager.errors import bad_input
from packager.shipping.apps.escapes import Safe

_FLAGS = {"llama.cpp": {"--no-repack"}}
_VARIABLES = {
    "llama.cpp": {"LLAMA_ARG_REPACK": re.compile("0")},
    "openvino": {"ONEDNN_MAX_CPU_ISA": re.compile("[A-Z][A-Z0-9_]{2,40}")},
}
_OPTIONS = {"onnxruntime": {"session.disable_prepacking": re.compile("1")}}


def facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """`flags`, `variables` and `options` of the engine, empty where it runs as it comes, and
    `caution` for other processors.

    Raises PackError (bad input) for a setting that is not known to be harmless.
    """
    runtime, settings = data["runtime"]["name"], data["runtime"].get("settings") or {}
    flags = list(settings.get("flags") or [])
    unknown = [flag for flag in flags if flag not in _FLAGS.get(runtime, ())]
    variables = _allowed(settings.get("variables") or {}, _VARIABLES.get(runtime, {}), unknown)
    options = (
        _allowed(settings.get("options") or {}, _OPTIONS.get(runtime, {}), unknown)
        if runtime == "onnxruntime"
        else {}
    )
    if unknown:
        raise bad_input(
            f"The manifest starts {runtime} with {unknown[0]!r}, which is not known here.",
            "Build the package again.",
        )
    return {
        "engine_flags": [Safe(flag) for flag in flags],
        "engine_variables": [(Safe(name), Safe(value)) for name, value in variables.items()],
        "engine_options": [(Safe(name), Safe(value)) for name, value in options.items()],
        "plain_start": not settings,
    }


def _allowed(
    given: Mapping[str, str], known: Mapping[str, re.Pattern[str]], unknown: list[str]
) -> dict[str, str]:
    unknown += [
        name
        for name, value in given.items()
        if name not in known or not known[name].fullmatch(value)
    ]
    return {name: value for name, value in given.items() if name not in unknown}
