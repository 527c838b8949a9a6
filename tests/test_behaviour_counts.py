"""A set of tasks is asked and counted: turns, what a package cannot be asked, neighbours, saved
results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packager.behaviour import tasks
from packager.behaviour.job import ask_all
from packager.behaviour.trial import kept, neighbours, save, summed
from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.manifest import read
from packager.package.verify import verify
from tests.support.behaviour_answers import LINE, call
from tests.support.byte_session import ByteSession
from tests.support.make_checkpoint import Silent
from tests.support.make_package import body, write_package


class Says(ByteSession):
    """Answers with the lines of its artifact in turn, again from the first when they end; ends each
    unless it is `endless`."""

    asked = 0

    def generate(
        self, prompt: Any, max_new_tokens: int, on_token: Any, *, stop: bool = True
    ) -> list[int]:
        lines = self._answer.decode().split("\n")
        line = lines[self.asked % len(lines)]
        self.asked += 1
        self.prompts.append(list(prompt))
        return list((line.replace("|", "\n") * (1000 if line == "endless" else 1)).encode())[
            :max_new_tokens
        ]


def asked(
    tmp_path: Path,
    says: str,
    *rows: dict[str, Any],
    context: int = 4000,
    template: str | None = None,
) -> dict[str, Any]:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ask_all(
        Silent(),
        session=f"{Says.__module__}:Says",
        artifact=says,
        settings={"context": context, "kv": "f16", "threads": None},
        template=template,
        prompts=str(file),
        think=False,
        log=str(tmp_path / "log"),
    )


def test_a_set_is_asked_and_counted_by_pass_and_kind(tmp_path: Path) -> None:
    rows = [LINE, {**LINE, "pass": "stress"}, {**LINE, "pass": "stress"}]
    found = summed(
        tasks.TaskSet("mine", "0" * 64, ()), asked(tmp_path, "yes\nno\nendless", *rows), think=False
    )
    assert (found["passed"], found["total"]) == (1, 3)
    assert found["passes"] == {
        "baseline": {"passed": 1, "total": 1},
        "stress": {"passed": 0, "total": 2},
    }
    assert found["failures"] == {
        "wrong_answer": 2,
        "lost_fact": 0,
        "format": 0,
        "tool_misuse": 0,
        "wrong_stop": 1,
    }
    assert [row["id"] for row in found["tasks"]] == ["line-1", "line-2", "line-3"]
    assert found["new_tokens"] == 3 + 2 + 160 and found["prompt_tokens"] == 24


PLAIN = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% if m.tool_calls %} {{ m.tool_calls[0].function.name }}{% endif %}\n{% endfor %}"
)


def test_turns_carry_what_was_said_and_end_with_the_first_that_fails(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    turns = [
        {"prompt": "Call it.", "checks": [{"kind": "tool_call", "name": "f"}]},
        {"tool_result": "7", "checks": [{"kind": "number", "value": 7}]},
        {"prompt": "Bye.", "checks": [{"kind": "stops"}]},
    ]
    row = {"system": "Be brief.", "tools": [tool], "turns": turns}
    says = call("f").replace("\n", "|")
    (found,) = asked(tmp_path, f"{says}\nit is 7\nbye", row, template=PLAIN)["tasks"]
    assert found["passed"] and found["answers"][1:] == ["it is 7", "bye"]
    (found,) = asked(tmp_path, f"{says}\nit is 8\nbye", row, template=PLAIN)["tasks"]
    assert [one["turn"] for one in found["failures"]] == [2] and len(found["answers"]) == 2


def test_what_a_package_cannot_be_asked_is_left_out_and_not_counted(tmp_path: Path) -> None:
    long = {
        "prompt": "{text} Where?",
        "fact": "It is here.",
        "checks": LINE["checks"],
        "max_tokens": 50,
    }
    found = asked(
        tmp_path,
        "yes",
        LINE,
        {**LINE, "system": "x"},
        long,
        {**LINE, "prompt": "x" * 5000},
        context=600,
    )
    assert [row["id"] for row in found["tasks"]] == ["line-1", "line-3"]
    assert [row["id"] for row in found["left_out"]] == ["line-2", "line-4"]
    assert [row["id"] for row in asked(tmp_path, "yes", long, context=200)["left_out"]] == [
        "line-1"
    ]


def test_neighbours_name_what_only_one_of_the_two_passes(tmp_path: Path) -> None:
    mine = tasks.TaskSet("mine", "0" * 64, ())
    own, other = (
        summed(mine, asked(tmp_path, says, LINE, LINE), think=False)
        for says in ("yes\nno", "no\nyes")
    )
    found = neighbours(own, {"smaller": ("tiny", other)})["neighbours"]["smaller"]
    assert (found["name"], found["passed"], found["only_it_passed"], found["only_this_passed"]) == (
        "tiny",
        1,
        ["line-2"],
        ["line-1"],
    )


def test_a_saved_result_leaves_the_package_whole_and_keeps_no_answers(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")
    tried = asked(
        tmp_path, "a\x1b[31m\nno", LINE, {**LINE, "checks": [{"kind": "tool_call", "name": "f"}]}
    )
    save(package, summed(tasks.TaskSet("mine", "0" * 64, ()), tried, think=False))
    assert verify(package) == []
    data = read(package).data["behaviour"]
    assert (
        data["total"] == 2
        and "answers" not in json.dumps(data)
        and "\\u001b" not in json.dumps(kept(data))
    )


def test_the_same_weights_in_more_files_are_no_size_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, shards = write_package(tmp_path / "one"), write_package(tmp_path / "shards")
    for folder, size in ((one, 1000), (shards, 1416)):
        manifest.write(folder, {**body(folder), "artifact_bytes": size})
    assert main(["behave", str(shards), "--smaller", str(one)]) == ExitCode.USAGE
    assert "holds the same weights" in capsys.readouterr().err


@pytest.mark.engine
def test_random_weights_are_not_asked_and_neighbours_must_be_neighbours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = str(write_package(tmp_path / "p"))
    assert main(["behave", package]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert "random weights" in err and out == ""
    assert main(["behave", package, "--smaller", package]) == ExitCode.USAGE
    assert "holds the same weights" in capsys.readouterr().err
    assert main(["behave", package, "--prompts", str(tmp_path / "none")]) == ExitCode.USAGE
