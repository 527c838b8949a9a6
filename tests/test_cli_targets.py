"""`targets` and `doctor` on the command line: what a person and a script see."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.cli.doctor import folder_bytes
from packager.errors import ExitCode
from targets import registry
from targets.devices.device_copy import MARK, marked, mistaken
from targets.registry import DEVICES, runtimes, target_names, targets


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_list_has_a_line_per_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[0] == "name"
    assert tuple(line.split("\t")[0] for line in lines[1:]) == target_names()


def test_the_list_as_json_has_the_fields_of_the_contract(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["targets", "--json"]) == ExitCode.DONE
    data = shown(capsys)
    assert data["schema"] == "qwen-pack/targets/1"
    laptop = next(each for each in data["targets"] if each["name"] == "laptop-cpu")
    assert laptop["runtimes"] == ["openvino", "llama.cpp", "onnxruntime"]
    assert laptop["memory_bytes"] == 16 * 2**30
    assert laptop["available_bytes"] == 12 * 2**30
    assert laptop["summary"]


def test_one_target_is_shown_in_full_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "raspberry-pi-5-8gb"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert re.search(r"bandwidth +10\.4 GB/s\n +fitted to the rows", text)
    assert re.search(r"for a model +7\.78 GB", text)
    # A processor is no GPU, and what is empty is no fact.
    assert "gpus" not in text and "{}" not in text
    assert main(["targets", "rtx-3090-x2"]) == ExitCode.DONE
    assert re.search(r"gpus +2\n", capsys.readouterr().out)


def test_a_file_is_shown_as_a_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["targets", "new", "mine", "--from", "laptop-cpu"]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["targets", "mine.toml", "--json"]) == ExitCode.DONE
    assert [each["name"] for each in shown(capsys)["targets"]] == ["mine"]


def test_an_unknown_target_names_the_nearest_and_ends_with_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["targets", "laptop-cpus"]) == ExitCode.USAGE
    assert "Did you mean 'laptop-cpu'" in capsys.readouterr().err


def test_a_file_without_problems_is_said_to_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["targets", "new", "mine", "--from", "cpu-gguf"])
    capsys.readouterr()
    assert main(["targets", "check", "mine.toml"]) == ExitCode.DONE
    printed = capsys.readouterr()
    assert printed.out == "mine.toml: no problems.\n"
    copied = [
        number
        for number, line in enumerate((tmp_path / "mine.toml").read_text().splitlines(), 1)
        if line.endswith("# copied from cpu-gguf")
    ]
    assert len(copied) > 10
    assert f"{len(copied)} values are still marked" in printed.err
    assert main(["targets", "check", "mine.toml", "--json"]) == ExitCode.DONE
    assert shown(capsys) == {
        "schema": "qwen-pack/targets-check/1",
        "file": "mine.toml",
        "problems": [],
        "copied": copied,
    }
    marked = tmp_path / "mine.toml"
    marked.write_text(marked.read_text().replace("  # copied from cpu-gguf", ""))
    assert main(["targets", "check", "mine.toml"]) == ExitCode.DONE
    assert capsys.readouterr().err == ""


def test_a_copy_of_every_device_is_that_device_with_its_facts_marked() -> None:
    for device in targets():
        text = (DEVICES / f"{device.name}.toml").read_text()
        copy = marked(text, device.name)
        assert tomllib.loads(copy) == tomllib.loads(text)
        wishes = copy[copy.index("[target]") :]
        assert MARK not in wishes
        facts = [line for line in copy.splitlines() if "=" in line and line not in wishes]
        assert {line.split()[0] for line in facts if MARK not in line} <= {
            *("name", "kind", "aliases"),
        }, device.name


def test_a_mark_goes_into_no_text_of_several_lines() -> None:
    text = 'summary = """\nname = 1\n"""\n[device]\nisa = [\n  "a",\n]\ncores = 4\n'
    copy = marked(text, "other")
    assert tomllib.loads(copy) == tomllib.loads(text)
    assert copy.count(MARK) == 2 and "cores = 4  # copied from other\n" in copy


def test_a_name_by_which_another_device_is_known_is_a_problem_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["targets", "new", "orange-pi-5", "--from", "raspberry-pi-5-8gb"])
    capsys.readouterr()
    assert main(["targets", "check", "orange-pi-5.toml"]) == ExitCode.USAGE
    assert (
        "orange-pi-5.toml:9: known_by has 'Raspberry Pi 5', by which raspberry-pi-5-8gb is known"
        in capsys.readouterr().err
    )
    assert main(["targets", "check", "orange-pi-5.toml", "--json"]) == ExitCode.USAGE
    assert [problem["line"] for problem in shown(capsys)["problems"]] == [9]
    file = tmp_path / "orange-pi-5.toml"
    file.write_text(file.read_text().replace('["Raspberry Pi 5"]', '["Orange Pi 5"]'))
    assert main(["targets", "check", "orange-pi-5.toml"]) == ExitCode.DONE


def test_no_device_is_known_by_the_name_of_another_with_its_memory() -> None:
    everyone = targets()
    assert [name for one in everyone if (name := mistaken(one, everyone))] == []


def test_a_file_with_problems_is_pointed_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["targets", "new", "mine", "--from", "laptop-cpu"])
    file = tmp_path / "mine.toml"
    file.write_text(file.read_text().replace("memory_bytes = 17_179_869_184", "memory_gb = 16", 1))
    capsys.readouterr()
    assert main(["targets", "check", "mine.toml"]) == ExitCode.USAGE
    assert (
        "mine.toml:6: memory_gb is not a key: memory_bytes counts bytes" in capsys.readouterr().err
    )
    assert main(["targets", "check", "mine.toml", "--json"]) == ExitCode.USAGE
    found = shown(capsys)["problems"]
    assert {
        "line": 6,
        "text": "memory_gb is not a key: memory_bytes counts bytes; write memory_bytes = 16000000000.",
    } in found


def test_what_fit_would_refuse_is_a_problem_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["targets", "new", "mine", "--from", "laptop-cpu"]) == ExitCode.DONE
    mine = tmp_path / "mine.toml"
    text = mine.read_text().replace('"gguf:Q4_K_M"', '"gguf:Q4_K_X"')
    mine.write_text(re.sub("use_case = .*", 'use_case = "chat"\ndimension = 64', text))
    capsys.readouterr()
    assert main(["targets", "check", "mine.toml"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "target.recipes has 'gguf:Q4_K_X': llama.cpp has no preset 'Q4_K_X'." in said
    assert "workload contradicts itself: The use case 'chat' gives no vectors" in said
    assert main(["fit", "--target", "mine.toml"]) == ExitCode.USAGE


def test_a_new_file_never_replaces_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("precious")
    assert main(["targets", "new", "mine", "--from", "laptop-cpu"]) == ExitCode.USAGE
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "mine.toml").read_text() == "precious"


def test_a_copy_starts_from_an_older_name_and_not_from_what_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["targets", "new", "mine", "--from", "rtx-3060"]) == ExitCode.DONE
    assert "copied from rtx-3060-12gb" in (tmp_path / "mine.toml").read_text()
    measured = replace(registry.target("laptop-cpu"), name=registry.HERE)
    monkeypatch.setattr(registry, "_this_machine", lambda: measured)
    capsys.readouterr()
    assert main(["targets", "new", "here", "--from", "this-machine"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "`qwen-pack probe --save here`" in said and ".toml'" not in said
    assert not (tmp_path / "here.toml").exists()


def test_help_speaks_of_the_name_and_of_both_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "[NAME|FILE.toml]" in text
    assert re.search(r"^ +check ", text, re.M)
    assert re.search(r"^ +new ", text, re.M)


def test_doctor_names_every_runtime_its_distributions_and_the_line_that_installs_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--json"]) == ExitCode.DONE
    data = shown(capsys)
    assert data["schema"] == "qwen-pack/doctor/1"
    for adapter, row in zip(runtimes(), data["runtimes"], strict=True):
        assert row["name"] == adapter.name
        assert tuple(part["name"] for part in row["distributions"]) == adapter.distributions
        assert row["ready"] == all(part["version"] for part in row["distributions"])
        assert row["install"] == f"pip install 'qwen-pack[{adapter.extra}]'"
    assert data["memory"]["available"] <= data["memory"]["total"]
    assert data["disk_free"] > 0


def test_doctor_says_what_is_missing_to_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from targets import registry

    adapter = runtimes()[0]
    monkeypatch.setattr(
        type(adapter),
        "distributions",
        (*adapter.distributions, "a-distribution-nobody-made"),
        raising=False,
    )
    registry.runtime.cache_clear()
    assert main(["doctor"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "a-distribution-nobody-made MISSING" in text
    assert f"pip install 'qwen-pack[{adapter.extra}]'" in text


def test_the_size_of_a_folder_counts_every_file_below_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 10)
    (tmp_path / "a/b/two").write_bytes(b"x" * 32)
    assert folder_bytes(tmp_path) == 42
    assert folder_bytes(tmp_path / "nowhere") == 0
