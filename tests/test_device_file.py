"""Device files: read whole, or refused with every problem at its line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.need.workload import workload_for
from targets.devices.device_file import read_target
from targets.devices.toml_lines import lines_of_keys
from tests.support.device_files import GOOD, RUNTIMES, changed, problems, read


def test_a_complete_file_becomes_a_target() -> None:
    target = read(GOOD)
    assert target.name == "mine"
    assert target.device.available_bytes == 12_000_000_000
    assert target.device.isa == "x86_64 avx2"
    assert target.device.sources["bandwidth"] == "its data sheet"
    assert target.runtimes == ("openvino", "llama.cpp")
    assert target.recipes == ("openvino:int4_sym_g128",)
    assert target.workload == replace(workload_for("chat"), context=2048)


def test_a_context_smaller_than_the_usual_prompt_shortens_the_prompt() -> None:
    assert read(changed("context = 2048", "context = 256")).workload.prompt == 128


def test_what_the_workload_does_not_say_comes_from_its_use_case() -> None:
    assert read(
        changed('use_case = "chat"\ncontext = 2048', 'use_case = "code"')
    ).workload == workload_for("code")


def test_an_unknown_use_case_is_refused_at_its_line() -> None:
    assert problems(changed('use_case = "chat"', 'use_case = "chatt"'))[0][0] == 26


def test_a_cap_for_one_process_bounds_what_a_model_may_take() -> None:
    text = changed("cores = 8\n", "cores = 8\nprocess_cap_bytes = 5_000_000_000\n").replace(
        "[target]", 'process_cap_bytes = "seen by itself"\n[target]'
    )
    assert read(text).device.available_bytes == 5_000_000_000


def test_a_gpu_with_memory_of_its_own_offers_that_memory() -> None:
    lines = (
        'runs_on = "gpu"\ngpu = "Card"\ngpu_memory_bytes = 8_000_000_000\ngpu_reserve_bytes = '
        "1_000_000_000\n"
    )
    text = changed("cores = 8\n", "cores = 8\n" + lines).replace(
        "[target]",
        'gpu_memory_bytes = "its data sheet"\ngpu_reserve_bytes = "its data sheet"\n[target]',
    )
    device = read(text).device
    assert device.available_bytes == 7_000_000_000
    assert device.host_available_bytes == 12_000_000_000


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        (
            "memory_bytes = 16_000_000_000",
            "memory_gb = 16",
            6,
            r"memory_gb is not a key: memory_bytes counts bytes; write memory_bytes = 16000000000\.",
        ),
        (
            "memory_bytes = 16_000_000_000",
            "memory_gib = 16",
            6,
            r"write memory_bytes = 17179869184\.",
        ),
        (
            "bandwidth = 40e9",
            "bandwidth_gbps = 40",
            10,
            r"counts bytes per second; write bandwidth = 40000000000\.",
        ),
        ("compute = 400e9", "compute_tflops = 0.4", 11, r"write compute = 400000000000\."),
        (
            "bandwidth = 40e9",
            "bandwidth = 40",
            10,
            r"bandwidth is 40, which is too small: it counts bytes per second",
        ),
        ("cores = 8", "cores = -8", 9, r"cores is -8: it cannot be negative\."),
        ("cores = 8", "cores = 0", 9, r"cores is 0, which is too small"),
        ("cores = 8", "cores = 7.5", 9, r"a whole number of cores belongs there"),
        (
            "cores = 8",
            'cores = "eight"',
            9,
            r"cores is 'eight', but a number of cores belongs there\.",
        ),
        ("cores = 8", "cores = true", 9, r"cores is True, but a number"),
        ("compute = 400e9", "compute = 1e30", 11, r"compute is 1e\+30, which is too large"),
        ("compute = 400e9", f"compute = {10**30}", 11, r"which is too large"),
        ("compute = 400e9", "compute = nan", 11, r"a finite number"),
        ("compute = 400e9", "compute = inf", 11, r"a finite number"),
        (
            "reserve_bytes = 4_000_000_000",
            "reserve_bytes = 16_000_000_000",
            7,
            r"leaves nothing of memory_bytes",
        ),
        ("cores = 8", "coars = 8", 9, r"coars is not a key of \[device\]\. Did you mean 'cores'\?"),
        ('kind = "laptop"', 'kind = "labtop"', 3, r"Did you mean 'laptop'\?"),
        ('name = "mine"', 'name = "../mine"', 1, r"name is '\.\./mine', but must be small letters"),
        (
            'confidence = "estimated"',
            'confidence = "sure"',
            12,
            r"must be one of measured, same-class, estimated",
        ),
        ('isa = ["x86_64", "avx2"]', 'isa = ["avx2"]', 8, r"the architecture comes first"),
        ('isa = ["x86_64", "avx2"]', 'isa = ["x86_64", "avx22"]', 8, r"Did you mean 'avx2'"),
        (
            'runtimes = ["openvino", "llama.cpp"]',
            'runtimes = ["openvno"]',
            22,
            r"'openvno', which is not a runtime\. Did you mean 'openvino'\?",
        ),
        ('runtimes = ["openvino", "llama.cpp"]', "runtimes = []", 22, r"needs at least one entry"),
        (
            'recipes = ["openvino:int4_sym_g128"]',
            'recipes = ["int4"]',
            23,
            r"'int4' is not a recipe",
        ),
        (
            'runtimes = ["openvino", "llama.cpp"]',
            'runtimes = ["openvino", "llama.cpp", "openvino"]',
            22,
            r"target\.runtimes names 'openvino' twice: leave one of the two out\.",
        ),
        ('isa = ["x86_64", "avx2"]', 'isa = ["x86_64", "avx2", "avx2"]', 8, r"'avx2' twice"),
        (
            'recipes = ["openvino:int4_sym_g128"]',
            'recipes = ["openvino:int4_sym_g128", "openvino:int4_sym_g128"]',
            23,
            r"names 'openvino:int4_sym_g128' twice",
        ),
        (
            'use_case = "chat"',
            'prefer = "cheap"',
            26,
            r"must be one of smallest, quality, speed, balanced",
        ),
        (
            "context = 2048",
            "context = 2048\nprompt = 2048",
            28,
            r"prompt leaves no room in the context",
        ),
        (
            "[workload]",
            "[worklaod]",
            25,
            r"worklaod is not a key of a device file\. Did you mean 'workload'\?",
        ),
        (
            'use_case = "chat"',
            'min_scores = { IFEval = "high" }',
            26,
            r"a table of numbers belongs there",
        ),
    ],
)
def test_a_slip_is_reported_at_its_line_with_the_way_to_write_it(
    old: str, new: str, line: int, says: str
) -> None:
    found = problems(changed(old, new))
    assert any(place == line and re.search(says, text) for place, text in found), found


def test_a_number_without_a_source_is_refused_at_the_number() -> None:
    assert problems(changed('cores = "its data sheet"\n', "")) == [
        (9, "cores has no source: add a line with that key below [source].")
    ]


def test_a_source_for_a_number_that_is_not_there_is_refused() -> None:
    assert problems(changed("[target]", 'storage_bytes = "its data sheet"\n[target]')) == [
        (
            21,
            "source.storage_bytes gives a source for a value that is not there: [device] has no "
            "storage_bytes.",
        )
    ]


def test_a_source_that_says_nothing_is_refused() -> None:
    assert problems(changed('cores = "its data sheet"', 'cores = "x"'))[0][0] == 17


def test_a_missing_key_is_reported_at_its_table() -> None:
    found = problems(changed("bandwidth = 40e9\n", ""))
    assert (5, "bandwidth is missing.") in found


def test_all_problems_of_a_file_are_reported_together_in_the_order_of_lines() -> None:
    text = (
        changed("cores = 8", "coars = 8")
        .replace('kind = "laptop"', "kind = 3")
        .replace("context = 2048", "context = -1")
    )
    lines = [line for line, _ in problems(text)]
    assert {3, 9, 27} <= set(lines)
    assert lines == sorted(lines)


def test_a_table_that_is_no_table_is_named() -> None:
    assert (1, "source must be a table, written [source].") in problems('source = "x"\n')


def test_an_empty_file_is_told_everything_it_lacks() -> None:
    assert {"name is missing.", "memory_bytes is missing.", "target.runtimes is missing."} <= {
        text for _, text in problems("")
    }


def test_a_file_that_is_not_toml_is_refused_at_the_line() -> None:
    found = problems(changed("cores = 8", "cores 8"))
    assert found[0][0] == 9
    assert "not TOML" in found[0][1]


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 5000])
def test_numbers_and_nesting_without_end_are_refused(text: str) -> None:
    assert problems(text)


def test_a_folder_a_binary_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    binary, huge = tmp_path / "binary.toml", tmp_path / "huge.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with huge.open("wb") as file:
        file.truncate(2 << 20)
    for path, says in (
        (tmp_path, "is a folder"),
        (binary, "is not UTF-8 text"),
        (huge, "larger than a device file can be"),
    ):
        with pytest.raises(PackError, match=says):
            read_target(path, RUNTIMES)


def test_lines_are_found_below_tables_in_quotes_and_behind_long_texts() -> None:
    text = 'a = 1\n"b c" = 2\n[t]\nx = """\ny = 3\n"""\nz = 4\nu.v = 5\n# w = 6\n[[list]]\nk = 7\n'
    assert lines_of_keys(text) == {
        "a": 1,
        "b c": 2,
        "t": 3,
        "t.x": 4,
        "t.z": 7,
        "t.u.v": 8,
        "list": 10,
        "list.k": 11,
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('min_scores = {"IFEval" = nan}', "asks for nan in IFEval"),
        ('min_scores = {"IFEval" = 5000}', "from 0 to 100"),
        ('min_scores = {"Foo" = 50}', "no benchmark 'Foo'"),
        ('modality = ["smell"]', "'smell'"),
        ("modality = []", "must be of text"),
        ('licenses = ["Apache"]', "'Apache', which no variant has"),
    ],
)
def test_a_wish_that_means_nothing_is_refused_at_its_line(line: str, says: str) -> None:
    text = GOOD.rstrip() + f"\n{line}\n"
    ((place, problem),) = problems(text)
    assert place == len(text.splitlines()) and says in problem


def test_a_check_for_scripts_is_json_whatever_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    for name in ("binary.toml", "absent.toml"):
        assert main(["targets", "check", str(tmp_path / name), "--json"]) == ExitCode.USAGE
        assert json.loads(capsys.readouterr().out)["problems"][0]["line"] == 1


def test_a_pipe_is_not_waited_for_and_a_mark_of_the_encoding_is_no_mistake(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(PackError, match="is a pipe"):
        read_target(tmp_path / "pipe.toml", RUNTIMES)
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_target(tmp_path / "mine.toml", RUNTIMES).name
