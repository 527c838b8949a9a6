"""Read a device file (TOML) into a Target; every problem is reported at once, with its line."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packager.device.target import Device, Target
from packager.errors import PackError, usage
from packager.foreign import load_toml
from packager.json_values import (
    JsonObject,
    at,
    at_or_none,
    object_at,
    object_or_empty,
    texts_at,
)
from packager.names import did_you_mean
from packager.need.usecases import MODALITIES, benchmark, use_case
from packager.need.workload import Workload, workload_for
from targets.devices.device_schema import (
    ARCHITECTURES,
    EXTENSIONS,
    SECTIONS,
    SOURCED,
    TOP,
    complaint,
    other_unit,
)
from targets.devices.toml_lines import lines_of_keys

_MAX_BYTES = 1 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def read_target(path: Path, runtimes: tuple[str, ...]) -> Target:
    """The target in a device file; `runtimes` are the names it may use.

    Raises PackError (usage) that names file, line and key of every problem.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise usage(
                f"{path} is a pipe or a device of the system, not a device file.",
                "Is it the right file?",
            )
        if status.st_size > _MAX_BYTES:
            raise usage(
                f"{path} is larger than a device file can be (1 MB).", "Is it the right file?"
            )
        # Some editors begin a file with the mark of the encoding.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise usage(f"{path} is not UTF-8 text.", "Is it the right file?") from None
    except IsADirectoryError:
        raise usage(f"{path} is a folder, not a device file.") from None
    except FileNotFoundError:
        raise usage(
            f"There is no device file {str(path)!r}.",
            "`qwen-pack targets` lists the devices that are known by name.",
        ) from None
    return parse_target(text, str(path), runtimes)


def parse_target(text: str, path: str, runtimes: tuple[str, ...]) -> Target:
    """The target in the text of a device file; `path` is for messages only."""
    file = Path(path).name
    try:
        data = load_toml(text)
    except tomllib.TOMLDecodeError as error:
        position = re.search(r"\s*\(at line (\d+), column \d+\)", str(error))
        text = str(error).replace(position[0], "") if position else str(error)
        raise BadDeviceFile(
            file, [(int(position[1]) if position else 1, f"this is not TOML: {text}.")]
        ) from None
    except ValueError:
        # Numbers of thousands of digits and tables nested a thousand deep: valid TOML, and nothing
        # else.
        raise BadDeviceFile(
            file,
            [(1, "this is not a device file: a number is too long, or the nesting too deep.")],
        ) from None
    problems = _Problems(file, text)
    _check(data, runtimes, problems)
    if problems.noted:
        raise problems.error()
    return _target(data, path)


_HINT = (
    "docs/devices.md describes every key; `qwen-pack targets new NAME --from laptop-cpu` "
    "writes a file to start from."
)


class BadDeviceFile(PackError):
    """A device file with problems: `problems` holds (line, text) in the order of the lines."""

    def __init__(self, file: str, problems: list[tuple[int, str]]) -> None:
        super().__init__("\n".join(f"{file}:{line}: {text}" for line, text in problems), _HINT)
        self.problems = problems


class _Problems:
    """What is wrong with one file."""

    def __init__(self, file: str, text: str) -> None:
        self.noted: list[tuple[str, str]] = []
        self._file, self._text = file, text

    def add(self, dotted: str, text: str) -> None:
        """One problem with a key."""
        self.noted.append((dotted, text))

    def error(self) -> BadDeviceFile:
        """All of them in one, in the order of the lines; a key that is missing is reported at its
        table."""
        lines = lines_of_keys(self._text)
        numbered = {
            (
                lines.get(dotted) or lines.get(dotted.rpartition(".")[0]) or 1,
                f"{dotted.removeprefix('device.')} {text}",
            )
            for dotted, text in self.noted
        }
        return BadDeviceFile(self._file, sorted(numbered))


def _check(data: JsonObject, runtimes: tuple[str, ...], problems: _Problems) -> None:
    sections = [*SECTIONS, "source"]
    for key in data:
        if key not in TOP and key not in sections:
            home = next((name for name, rules in SECTIONS.items() if key in rules), None)
            where = f" It belongs below [{home}]." if home else did_you_mean(key, [*TOP, *sections])
            problems.add(key, f"is not a key of a device file.{where}")
    _check_section("", {key: data[key] for key in TOP if key in data}, problems)
    for section in sections:
        part = data.get(section, {})
        if not isinstance(part, Mapping):
            problems.add(section, f"must be a table, written [{section}].")
        elif section == "source":
            _check_sources(part, data.get("device", {}), problems)
        else:
            _check_section(section, part, problems)
    if isinstance(name := data.get("name"), str) and not NAME.fullmatch(name):
        problems.add(
            "name", f"is {name!r}, but must be small letters, digits, dots and hyphens, at most 64."
        )
    device = data.get("device")
    _check_isa(device.get("isa") if isinstance(device, Mapping) else None, problems)
    _check_target(data.get("target", {}), runtimes, problems)
    if not problems.noted:
        _check_sense(object_at(data, "device"), object_or_empty(data, "workload"), problems)


def _check_section(section: str, part: JsonObject, problems: _Problems) -> None:
    """Types, ranges, unknown and missing keys of one table (or of the top, named "")."""
    rules = SECTIONS[section] if section else TOP
    dot = f"{section}." if section else ""
    for key, value in part.items():
        if key not in rules:
            text = (
                other_unit(key, value, rules)
                or f"is not a key of [{section}].{did_you_mean(key, rules)}"
            )
            problems.add(dot + key, text)
        elif wrong := complaint(rules[key], value):
            problems.add(dot + key, wrong)
    for key, rule in rules.items():
        if getattr(rule, "required", False) and key not in part:
            problems.add(dot + key, "is missing.")


def _check_sources(sources: JsonObject, device: Any, problems: _Problems) -> None:
    known = SECTIONS["device"]
    for key, value in sources.items():
        if key not in known:
            problems.add(
                f"source.{key}",
                f"names a key that [device] does not have.{did_you_mean(key, known)}",
            )
        elif not isinstance(value, str) or len(value.strip()) < 8:
            problems.add(f"source.{key}", "must be a text that says where the number comes from.")
        elif isinstance(device, dict) and key not in device:
            problems.add(
                f"source.{key}",
                f"gives a source for a value that is not there: [device] has no {key}.",
            )
    for key in device if isinstance(device, dict) else ():
        if key in SOURCED and key not in sources:
            problems.add(f"device.{key}", "has no source: add a line with that key below [source].")


def _check_isa(isa: Any, problems: _Problems) -> None:
    if not isinstance(isa, list) or not isa or not all(isinstance(word, str) for word in isa):
        return
    if isa[0] not in ARCHITECTURES:
        problems.add(
            "device.isa",
            f"begins with {isa[0]!r}, but the architecture comes first: "
            f"{', '.join(ARCHITECTURES)}.",
        )
    for word in isa[1:]:
        if word not in EXTENSIONS:
            problems.add(
                "device.isa",
                f"has {word!r}, which is not a known extension.{did_you_mean(word, EXTENSIONS)}",
            )


def _check_target(target: Any, runtimes: tuple[str, ...], problems: _Problems) -> None:
    if not isinstance(target, dict):
        return
    for name in target.get("runtimes", []) if isinstance(target.get("runtimes"), list) else ():
        if isinstance(name, str) and name not in runtimes:
            problems.add(
                "target.runtimes",
                f"names {name!r}, which is not a runtime.{did_you_mean(name, runtimes)}",
            )
    from packager.recipe import split_id

    for recipe in target.get("recipes", []) if isinstance(target.get("recipes"), list) else ():
        if isinstance(recipe, str):
            try:
                split_id(recipe)
            except PackError as error:
                problems.add("target.recipes", f"has an error: {error.message} {error.hint}")


def _check_sense(device: JsonObject, workload: JsonObject, problems: _Problems) -> None:
    """Numbers that are fine alone but contradict each other."""
    memory = at(device, "memory_bytes", float)
    if at(device, "reserve_bytes", float) >= memory:
        problems.add("device.reserve_bytes", "leaves nothing of memory_bytes to a model.")
    if (at_or_none(device, "process_cap_bytes", float) or 0) > memory:
        problems.add("device.process_cap_bytes", "is larger than memory_bytes.")
    reserved, gpu_memory = (
        at_or_none(device, key, float) for key in ("gpu_reserve_bytes", "gpu_memory_bytes")
    )
    if gpu_memory is not None and (reserved or 0) >= gpu_memory:
        problems.add("device.gpu_reserve_bytes", "leaves nothing of gpu_memory_bytes to a model.")
    unit = device.get("runs_on", "cpu")
    if (at_or_none(device, "gpus", int) or 1) > 1 and (
        unit != "gpu" or "gpu_memory_bytes" not in device
    ):
        problems.add(
            "device.gpus",
            'shares layers among GPUs: it takes runs_on = "gpu" and gpu_memory_bytes.',
        )
    if unit != "cpu" and unit not in device:
        problems.add(
            "device.runs_on", f'is {unit!r}, but there is no {unit} = "..." that names it.'
        )
    prompt, context = (at_or_none(workload, key, float) for key in ("prompt", "context"))
    if context is not None and (prompt or 0) >= context:
        problems.add(
            "workload.prompt",
            "leaves no room in the context, which holds prompt and answer together.",
        )
    if "use_case" in workload:
        try:
            use_case(at(workload, "use_case", str))
        except PackError as error:
            problems.add("workload.use_case", f"is unknown: {error.message}")
    scores = object_or_empty(workload, "min_scores")
    for name in scores:
        least = at(scores, name, float)
        try:
            benchmark(name)
        except PackError as error:
            problems.add("workload.min_scores", f"has an unknown one: {error.message}")
        if not 0 <= least <= 100:
            problems.add(
                "workload.min_scores", f"asks for {least:g} in {name}, but scores go from 0 to 100."
            )
    for word in (texts_at(workload, "modality") or [""]) if "modality" in workload else ():
        if word not in MODALITIES:
            problems.add(
                "workload.modality",
                f"has {word!r}, but must be of "
                f"{', '.join(MODALITIES)}.{did_you_mean(word, MODALITIES)}",
            )
    _check_licences(texts_at(workload, "licenses"), problems)
    try:
        _codes(texts_at(workload, "languages"))
    except PackError as error:
        problems.add("workload.languages", f"has an unknown one: {error.message}")


def _codes(names: Sequence[str]) -> tuple[str, ...]:
    """The codes of languages. Raises PackError (usage) for an unknown one."""
    if not names:
        return ()
    # Late: most files name none.
    from packager.need.languages import codes

    return codes(names)


def _check_licences(words: list[str], problems: _Problems) -> None:
    if not words:
        return
    # Late: most files name none, and a list of devices needs no catalogue.
    from packager.catalog import licence_ids

    known = ("any", *licence_ids())
    by_fold = {name.casefold() for name in known}
    for word in words:
        if word.casefold() not in by_fold:
            problems.add(
                "workload.licenses",
                f"has {word!r}, which no variant has.{did_you_mean(word, known)}",
            )


def _target(data: JsonObject, path: str) -> Target:
    """The checked data as objects."""
    target = object_at(data, "target")
    return Target(
        name=at(data, "name", str),
        summary=at(data, "summary", str),
        kind=at(data, "kind", str),
        device=_device(object_at(data, "device"), object_or_empty(data, "source")),
        runtimes=tuple(texts_at(target, "runtimes")),
        recipes=tuple(texts_at(target, "recipes")),
        workload=_workload(object_or_empty(data, "workload")),
        path=path,
        aliases=tuple(texts_at(data, "aliases")),
    )


_WHOLE = (
    *("memory_bytes", "reserve_bytes", "process_cap_bytes", "cores", "storage_bytes"),
    *("gpu_memory_bytes", "gpu_reserve_bytes", "gpus"),
)
_RATES = (
    *("bandwidth", "compute", "host_bandwidth", "host_compute", "link_bandwidth"),
    *("storage_bandwidth", "npu_ops", "operation_seconds"),
)
"""Numbers of a Device; TOML may have each with a decimal point or without."""
_WHOLE_WISHES = (
    *("context", "prompt", "max_artifact_bytes", "max_memory_bytes", "parallel"),
    "max_image_tokens",
)


def _device(named: JsonObject, sources: JsonObject) -> Device:
    # Any: the fields of a Device, each checked against the schema before.
    facts: dict[str, Any] = {"process_cap_bytes": None, "storage_bytes": None, **named}
    facts["isa"] = " ".join(texts_at(named, "isa"))
    facts["known_by"] = tuple(texts_at(named, "known_by"))
    facts |= {key: int(facts[key]) for key in _WHOLE if key in named}
    facts |= {key: float(facts[key]) for key in _RATES if key in named}
    return Device(**facts, sources={key: str(text) for key, text in sources.items()})


def _workload(asked: JsonObject) -> Workload:
    """What the file asks; what it does not say comes from its use case."""
    # Any: as above, those of a Workload.
    wish: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()
    }
    wish |= {key: int(wish[key]) for key in _WHOLE_WISHES if key in wish}
    if "languages" in wish:
        wish["languages"] = _codes(wish["languages"])
    workload = replace(workload_for(wish.get("use_case", "chat")), **wish)
    if "prompt" not in wish and workload.prompt >= workload.context:
        return replace(workload, prompt=workload.context // 2)
    return workload
