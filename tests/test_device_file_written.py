"""Device files that are written: what may be said reads back the same, and nobody's text ends in
anything but a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from packager.device.target import Target
from packager.errors import PackError
from packager.need.usecases import MODALITIES, use_case_names
from targets.devices.device_schema import (
    DEVICE,
    EXTENSIONS,
    SECTIONS,
    SOURCED,
    TOP,
    WORKLOAD,
    Number,
    Rule,
    Word,
)
from targets.devices.device_write import device_text, new_file, renamed
from targets.devices.tuned import tuned
from targets.registry import targets
from tests.support.device_files import GOOD, read

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))


VALUES = st.recursive(
    SCALARS.filter(lambda value: value is not None),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from(
        [*(("device", key) for key in DEVICE), *(("workload", key) for key in WORKLOAD)]
    ),
    VALUES,
)
def test_no_value_of_any_key_ends_in_anything_but_a_target_or_a_sentence(
    place: tuple[str, str], value: Any
) -> None:
    from targets.devices.device_write import _value

    section, key = place
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{key} =")]
    lines.insert(lines.index(f"[{section}]") + 1, f"{key} = {_value(value)}")
    text = "\n".join(lines).replace(
        "[target]", f'{key} = "its data sheet"\n[target]' if section == "device" else "[target]"
    )
    try:
        read(text)
    except PackError as error:
        assert error.message.startswith("mine.toml:")


@given(st.text(max_size=300))
def test_no_text_ends_in_anything_but_a_sentence(text: str) -> None:
    with pytest.raises(PackError, match=r"mine\.toml:\d+: "):
        read(text)


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_target_written_as_a_file_reads_back_the_same(target: Target) -> None:
    # What was measured for processors of its class comes with the name, not with the file.
    again = tuned(replace(read(device_text(target)), path=target.path))
    assert again == target


TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: bool(text.strip()))


CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "isa": st.lists(st.sampled_from(EXTENSIONS), max_size=3).map(lambda words: ["x86_64", *words]),
    "use_case": st.sampled_from(use_case_names()),
    "min_scores": st.dictionaries(
        st.sampled_from(["MMLU-Pro", "MMMLU"]), st.floats(0, 100) | st.integers(0, 100), max_size=2
    ),
    "modality": st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=2),
    "licenses": st.lists(st.sampled_from(["any", "apache-2.0"]), max_size=2),
    "languages": st.lists(st.sampled_from(["de", "en", "cy", "German"]), max_size=3),
    "runtimes": st.lists(st.sampled_from(["llama.cpp", "openvino"]), min_size=1, max_size=2),
    "recipes": st.lists(st.sampled_from(["gguf:Q4_K_M", "gguf:Q8_0"]), max_size=2),
    "name": st.just("mine"),
}


def values(key: str, rule: Rule) -> st.SearchStrategy[Any]:
    """What a file may say under a key."""
    if key in CHOICES:
        return CHOICES[key]
    if isinstance(rule, Number):
        low, high = rule.low, rule.high
        return st.sampled_from([int(low) if rule.whole else low, high]) | (
            st.integers(int(low), int(high)) if rule.whole else st.floats(low, high)
        )
    if isinstance(rule, Word):
        return st.sampled_from(rule.choices) if rule.choices else TEXTS
    return st.lists(TEXTS, max_size=2)


def section(rules: dict[str, Rule]) -> st.SearchStrategy[dict[str, Any]]:
    """One table: the keys that it must have, and any others."""
    must = {
        key: values(key, rule) for key, rule in rules.items() if getattr(rule, "required", False)
    }
    may = {key: values(key, rule) for key, rule in rules.items() if key not in must}
    return st.fixed_dictionaries(must, optional=may)


@given(section(TOP), section(DEVICE), section(SECTIONS["target"]), section(WORKLOAD), st.data())
def test_whatever_a_file_may_say_is_written_and_read_back_as_the_same_device(
    top: dict[str, Any],
    device: dict[str, Any],
    served: dict[str, Any],
    wish: dict[str, Any],
    data: st.DataObject,
) -> None:
    from targets.devices.device_write import _value

    device["reserve_bytes"] = min(device["reserve_bytes"], device["memory_bytes"] - 1)
    for unit in ("gpu", "npu"):
        if device.get("runs_on") == unit:
            device.setdefault(unit, "a unit")
    sources = {
        key: data.draw(TEXTS) + " its data sheet"
        for key in device
        if key in SOURCED or data.draw(st.booleans())
    }
    tables = {"": top, "device": device, "source": sources, "target": served, "workload": wish}
    lines = []
    for name, table in tables.items():
        lines += [
            f"[{name}]" if name else "",
            *(f"{key} = {_value(value)}" for key, value in table.items()),
        ]
    try:
        target = read("\n".join(lines))
    except PackError:
        reject()
    assert replace(read(device_text(target)), path=target.path) == target


def test_a_target_that_no_file_can_say_is_refused_and_not_written_as_another() -> None:
    target = read(GOOD)
    wish = replace(target.workload, min_decode_tps=None, use_case="chat")
    for other in (
        replace(target, workload=wish),
        replace(target, kind="toaster"),
        replace(target, device=replace(target.device, cores=0)),
    ):
        with pytest.raises(PackError, match="cannot be written as a device file"):
            device_text(other)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace('name = "mine"', "'name' = 'mine'"),
        GOOD.replace('name = "mine"', '"name"="mine"'),
        "\ufeff" + GOOD,
        GOOD.replace(
            'name = "mine"', 'summary = """\nname = "not this"\n"""\nname = "mine"'
        ).replace('summary = "A test bench"\n', ""),
    ],
)
def test_a_new_name_goes_where_the_name_is_however_it_is_written(text: str) -> None:
    before, after = read(text.removeprefix("\ufeff")), read(renamed(text, "other"))
    assert replace(after, name="mine") == before and after.name == "other"


def test_a_name_over_several_lines_is_not_changed_blindly() -> None:
    with pytest.raises(PackError, match="cannot be changed safely"):
        renamed(GOOD.replace('name = "mine"', 'name = """\nmine"""'), "other")


@given(st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip())))
def test_any_text_survives_writing_and_reading(summary: str) -> None:
    target = replace(read(GOOD), summary=summary)
    assert read(device_text(target)).summary == summary


def test_a_new_file_differs_from_its_origin_in_the_name_alone() -> None:
    copy = renamed(GOOD, "other")
    assert copy == GOOD.replace('"mine"', '"other"')
    assert read(copy).name == "other"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "mine.toml/../x", "x" * 65])
def test_a_name_that_could_leave_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot name a device"):
        new_file(name, GOOD, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("precious")
    with pytest.raises(PackError, match=r"mine\.toml already exists"):
        new_file("mine", GOOD, tmp_path)
    assert (tmp_path / "mine.toml").read_text() == "precious"
