"""Write a Target as the text of a device file: what `device_file` reads back as the same Target."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from packager.device.target import Target
from packager.errors import PackError, usage
from packager.escapes import toml
from packager.need.workload import Workload, workload_for
from targets.devices.device_file import NAME, parse_target
from targets.devices.device_schema import DEVICE, WORKLOAD


def device_text(target: Target) -> str:
    """The whole file. Values that equal the default, or the use case's own, are left out.

    Raises PackError (usage) for a target that no device file gives back as it is.
    """
    text = _text(target)
    try:
        again = parse_target(text, target.path or f"{target.name}.toml", target.runtimes)
    except PackError as error:
        raise usage(
            f"{target.name} cannot be written as a device file: {error.message}", error.hint
        ) from None
    different = _different(_that_runs(target), again)
    if different:
        raise usage(
            f"{target.name} cannot be written as a device file: {different} would be read back as "
            "another value.",
            "Take the default for it, or write the file in an editor.",
        )
    return text


def _different(one: Target, other: Target) -> str | None:
    """The first field in which two targets are not the same, their paths aside."""
    for name in (
        field.name for field in fields(Target) if field.name not in ("path", "device", "workload")
    ):
        if getattr(one, name) != getattr(other, name):
            return name
    for part in ("device", "workload"):
        here, there = getattr(one, part), getattr(other, part)
        for field in fields(here):
            if getattr(here, field.name) != getattr(there, field.name):
                return f"{part}.{field.name}"
    return None


def _text(target: Target) -> str:
    device = target.device
    facts = {key: getattr(device, key) for key in DEVICE}
    facts["isa"] = device.isa.split()
    empty = {"", None}
    left_out = (("gpu_reserve_bytes", 0), ("known_by", ()), ("gpus", 1))
    rows = {
        key: value
        for key, value in facts.items()
        if isinstance(value, list)
        or (value not in empty and ((key, value) not in left_out or key in device.sources))
    }
    default = workload_for(target.workload.use_case)
    wish = {
        field.name: getattr(target.workload, field.name)
        for field in fields(Workload)
        if field.name in WORKLOAD
        and (
            field.name == "use_case"
            or getattr(target.workload, field.name) != getattr(default, field.name)
        )
    }
    aliases = {"aliases": list(target.aliases)} if target.aliases else {}
    sections = [
        ("", {"name": target.name, "summary": target.summary, "kind": target.kind, **aliases}),
        ("device", rows),
        ("source", {key: text for key, text in device.sources.items() if key in rows}),
        ("target", _served(target)),
        ("workload", {key: value for key, value in wish.items() if value is not None}),
    ]
    parts = []
    for name, section in sections:
        if section:
            head = f"[{name}]\n" if name else ""
            parts.append(
                head + "".join(f"{key} = {_value(value)}\n" for key, value in section.items())
            )
    return "\n".join(parts)


def _that_runs(target: Target) -> Target:
    """The target as its file says it: what does not run on its processor is left out, and so is
    why; so are first recipes by measurement, which come with every processor of that class."""
    served = _served(target)
    return replace(
        target,
        runtimes=tuple(served["runtimes"]),
        recipes=tuple(served.get("recipes", ())),
        tuned=(),
        device=replace(target.device, cannot_run={}),
    )


def _served(target: Target) -> dict[str, list[str]]:
    """Runtimes and recipes, without those that do not run on its processor."""
    runtimes = [name for name in target.runtimes if name not in target.device.cannot_run]
    prefixes = {"llama.cpp": "gguf", "onnxruntime": "onnx"}
    served = {prefixes.get(name, name) for name in runtimes}
    recipes = [
        recipe
        for recipe in target.recipes
        if not target.device.cannot_run or recipe.partition(":")[0] in served
    ]
    return {"runtimes": runtimes, **({"recipes": recipes} if recipes else {})}


def renamed(text: str, name: str) -> str:
    """The text of a device file with another name: everything else, comments too, stays as it is.

    Raises PackError (usage) where the name does not stand on its own line, so that nothing
    else could change with it.
    """
    text = text.removeprefix("\ufeff")
    wanted = {**tomllib.loads(text), "name": name}
    # A line that looks like it may stand in the middle of a long text.
    for line in re.finditer(r"(?m)^[ \t]*(?:name|\"name\"|'name')[ \t]*=.*$", text):
        candidate = f"{text[: line.start()]}name = {_value(name)}{text[line.end() :]}"
        with suppress(tomllib.TOMLDecodeError):
            if tomllib.loads(candidate) == wanted:
                return candidate
    raise usage(
        "The name in this device file cannot be changed safely.",
        'Write it as name = "..." on its own line.',
    )


def new_path(name: str, folder: Path) -> Path:
    """NAME.toml in `folder`. Raises PackError (usage) for a bad name, or where the file already
    exists."""
    if not NAME.fullmatch(name):
        raise usage(
            f"{name!r} cannot name a device.",
            "Use small letters, digits, dots and hyphens, at most 64, without .toml at the end.",
        )
    path = folder / f"{name}.toml"
    if path.exists():
        raise _taken(path)
    return path


def new_file(name: str, text: str, folder: Path) -> Path:
    """Write NAME.toml, whole or not at all. Raises PackError as `new_path` does."""
    path = new_path(name, folder)
    try:
        # "x" never replaces a file: not even one that appeared a moment ago.
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise _taken(path) from None
    try:
        with file:
            file.write(text)
    except OSError:
        path.unlink()
        raise
    return path


def _taken(path: Path) -> PackError:
    return usage(f"{path.name} already exists.", "Choose another name, or remove the file.")


def _value(value: Any) -> str:
    """One TOML value."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return toml(value)
        case int():
            return f"{value:_}"
        case float():
            return repr(value)
        case dict():
            return (
                "{ "
                + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items())
                + " }"
            )
    return "[" + ", ".join(_value(item) for item in value) + "]"
