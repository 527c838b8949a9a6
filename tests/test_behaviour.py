"""Tasks with checkable answers: what each check lets pass, what a reply is taken apart into, and
which sets are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.behaviour import tasks
from packager.behaviour.answer import Answer, parse
from packager.behaviour.checks import FAILURES, Check, failures
from packager.behaviour.long_text import long_text
from packager.errors import ExitCode, PackError
from tests.support.behaviour_answers import LINE, RIGHT, WRONG, call

SHIPPED = {task.id: task for task in tasks.shipped().tasks}


def kinds(
    reply: str, *checks: Check | dict[str, Any], stopped: bool = True, **options: Any
) -> list[str]:
    made = [check if isinstance(check, Check) else Check.from_json(check) for check in checks]
    return [failure.kind for failure in failures(parse(reply, stopped), made, **options)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_task_lets_a_right_answer_pass_and_stops_a_wrong_one(name: str) -> None:
    task = SHIPPED[name]
    assert [
        kinds(reply, *turn.checks) for turn, reply in zip(task.turns, RIGHT[name], strict=True)
    ] == [[]] * len(task.turns)
    reply, kind = WRONG[name]
    assert kind in kinds(reply, *task.turns[-1].checks)
    assert kinds("", *task.turns[0].checks), "nothing at all passes"
    assert kinds(RIGHT[name][0], *task.turns[0].checks, stopped=False) == ["wrong_stop"]


def test_the_set_has_every_kind_of_task_that_it_promises() -> None:
    assert {task.stage for task in SHIPPED.values()} == set(tasks.PASSES)
    used = {check.kind for task in SHIPPED.values() for turn in task.turns for check in turn.checks}
    assert used >= set(tasks.schemas()) - {"task", "turn", "stops", "transcript"}
    assert [SHIPPED[f"long-{place}"].depth for place in ("early", "middle", "late")] == [
        0.1,
        0.5,
        0.9,
    ]
    assert sum(len(task.turns) > 1 for task in SHIPPED.values()) >= 4
    assert all(json.loads(line)["why"] for line in tasks.SHIPPED.read_text("utf-8").splitlines())


@pytest.mark.parametrize(
    ("check", "right", "wrong", "kind"),
    [
        ({"kind": "equals", "any": ["yes"]}, " Yes. ", "yes, it is", "wrong_answer"),
        ({"kind": "contains", "all": ["a", "b"]}, "B and A", "only a", "wrong_answer"),
        ({"kind": "contains", "any": ["x", "y"], "fails_as": "lost_fact"}, "Y", "z", "lost_fact"),
        ({"kind": "lacks", "any": ["secret"]}, "nothing", "a Secret", "wrong_answer"),
        ({"kind": "regex", "pattern": "^b"}, "a\nb", "ab", "wrong_answer"),
        ({"kind": "number", "value": 1234.5}, "from 3 to 1,234.5", "1234.5, not 7", "wrong_answer"),
        (
            {"kind": "number", "value": -3, "within": 0.5},
            "-2.8 degrees",
            "-2 degrees",
            "wrong_answer",
        ),
        ({"kind": "number", "value": 3}, "3", "three", "wrong_answer"),
        ({"kind": "length", "most_words": 2}, "one two", "one two three", "format"),
        ({"kind": "length", "least_lines": 2}, "a\n\nb", "a", "format"),
        ({"kind": "json"}, "```\n[1]\n```", "Here it is: [1]", "format"),
        ({"kind": "json", "fence": False}, "[1]", "```json\n[1]\n```", "format"),
        ({"kind": "json", "schema": {"type": "array"}}, "[]", "{}", "format"),
        (
            {"kind": "json", "values": {"a.0.b": "Yes"}},
            '{"a": [{"b": "yes"}]}',
            '{"a": []}',
            "wrong_answer",
        ),
        ({"kind": "json", "values": {"²": 1}}, '{"²": 1}', "[1, 2, 3]", "wrong_answer"),
        ({"kind": "json", "values": {"a": True}}, '{"a": true}', '{"a": 1}', "wrong_answer"),
        ({"kind": "tool_call", "name": "f"}, call("f"), call("g"), "tool_misuse"),
        (
            {"kind": "tool_call", "name": "f", "values": {"n": 2}},
            call("f", n=2),
            call("f", n=3),
            "tool_misuse",
        ),
        ({"kind": "tool_call", "name": "f"}, call("f"), call("f") + call("f"), "tool_misuse"),
        (
            {"kind": "tool_call", "name": "f"},
            call("f"),
            '<tool_call>{"name": "f"}</tool_call>',
            "tool_misuse",
        ),
        (
            {"kind": "tool_call", "name": "f"},
            call("f"),
            call("f").removesuffix("</tool_call>"),
            "tool_misuse",
        ),
        ({"kind": "no_tool_call"}, "hello", "<tool_call>what", "tool_misuse"),
    ],
)
def test_a_check_tells_right_from_wrong_and_names_the_kind(
    check: dict[str, Any], right: str, wrong: str, kind: str
) -> None:
    assert kinds(right, check) == []
    assert kinds(wrong, check) == [kind]


def test_an_answer_that_does_not_end_fails_whatever_it_says_unless_it_may_be_cut() -> None:
    right = {"kind": "contains", "any": ["yes"]}
    assert kinds("yes", right, stopped=False) == ["wrong_stop"]
    assert kinds("yes", right, stopped=False, may_be_cut=True) == []
    assert kinds("yes<|im_end|>\n<|im_start|>user", right) == ["wrong_stop"], "it ran past its end"


def test_a_thought_is_no_part_of_an_answer_and_one_without_end_is_none() -> None:
    assert parse("<think>\nParis? No.\n</think>\n\nRome", True) == Answer("Rome")
    assert parse("Paris? No.</think>Rome", True) == Answer("Rome")
    assert parse("<think>Paris? No, or", True) == Answer("", False)


def test_calls_are_read_in_both_forms_that_the_models_write() -> None:
    found = parse('I look.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', True)
    assert (found.text, [(one.name, one.arguments) for one in found.calls]) == (
        "I look.",
        [("f", {"a": 1})],
    )
    written = (
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nOslo\n</parameter>\n"
        "</function>\n</tool_call>"
    )
    assert parse(written, True).calls[0].arguments == {"a": 1, "b": "Oslo"}
    assert found.message()["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


@given(
    st.text(alphabet="<>/|_{}\"' \ntool_callfunction=parameterthinkim_end", max_size=200),
    st.booleans(),
)
def test_no_reply_whatsoever_ends_in_anything_but_an_answer(reply: str, stopped: bool) -> None:
    found = parse(reply, stopped)
    everything = [
        {"kind": "json", "schema": {"type": "object"}},
        {"kind": "tool_call", "name": "f"},
        {"kind": "number", "value": 1},
    ]
    checks = [Check.from_json(check) for check in everything]
    assert {failure.kind for failure in failures(found, checks)} <= set(FAILURES)


def test_a_schema_that_refers_elsewhere_fails_and_fetches_nothing() -> None:
    check = {"kind": "json", "schema": {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}}
    (wrong,) = failures(Answer('{"a": 1}'), [Check.from_json(check)])
    assert wrong.kind == "format" and "refers to" in wrong.why


@given(st.floats(0, 1), st.integers(160, 3000))
def test_a_long_text_keeps_to_its_room_and_holds_its_fact_where_it_should(
    depth: float, tokens: int
) -> None:
    def length(text: str) -> int:
        return len(text.split())

    fact = "The key is 42."
    text = long_text(fact, depth, tokens, length)
    assert text is not None and tokens * 0.6 < length(text) <= tokens and text.count(fact) == 1
    assert abs(length(text.partition(fact)[0]) / length(text) - depth) < 0.35
    assert long_text(fact, depth, 100, length) is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 1 is not valid JSON|line 1.*not valid JSON"),
        ([], "is not of type 'object'"),
        ({**LINE, "promt": "x"}, "no 'promt'.*Did you mean 'prompt'"),
        ({"prompt": "x"}, "'checks' is a required property"),
        ({**LINE, "turns": [LINE]}, "either 'prompt' and 'checks', or 'turns'"),
        (
            {**LINE, "checks": [{"kind": "contain"}]},
            r"checks\[0\].*'contain'.*Did you mean 'contains'",
        ),
        ({**LINE, "checks": [{"kind": "regex", "pattern": "("}]}, "pattern is not valid"),
        ({**LINE, "checks": [{"kind": "json", "schema": {"type": "text"}}]}, "schema is not valid"),
        ({**LINE, "checks": [{"kind": "number", "value": "3"}]}, "value"),
        ({**LINE, "max_tokens": 0}, "max_tokens"),
        ({**LINE, "fact": "x"}, "must appear in the first prompt as"),
        ({**LINE, "prompt": "{text} ?"}, "must appear in the first prompt as"),
        ({"turns": [{"tool_result": "x", "checks": LINE["checks"]}]}, "first turn is a prompt"),
        ({"turns": [{**LINE, "tool_result": "x"}]}, "either 'prompt' or 'tool_result'"),
        ({**LINE, "pass": "warmup"}, "warmup"),
        ({**LINE, "id": "../x"}, "id"),
        ({**LINE, "images": ["none.png"]}, "'none.png', and there is no such file"),
        ({**LINE, "images": ["/etc/passwd"]}, "not below the folder of the list"),
        ({**LINE, "images": ["../mine.png"]}, "not below the folder of the list"),
        ({**LINE, "audio": "a.wav", "system": "x"}, "a task with 'audio' has no 'system'"),
        ({"audio": "none.wav", "checks": LINE["checks"]}, "'none.wav', and there is no such file"),
        ({**LINE, "images": ["a" * 5000]}, "a', and there is no such file"),
        ({"audio": "a\0.wav", "checks": LINE["checks"]}, "and there is no such file"),
        ({"audio": "\ud83d", "checks": LINE["checks"]}, "is not valid JSON.*surrogates"),
    ],
)
def test_a_mistake_in_a_set_is_told_with_file_and_line(
    row: Any, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(row if isinstance(row, str) else json.dumps(row))
    with pytest.raises(PackError, match=words) as caught:
        tasks.read(file)
    assert caught.value.exit_code == ExitCode.INPUT and "mine.jsonl" in caught.value.message


def test_sets_without_tasks_with_two_of_a_name_or_nowhere_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n\n")
    with pytest.raises(PackError, match="0 tasks"):
        tasks.read(file)
    file.write_text(f"{json.dumps({**LINE, 'id': 'a'})}\n{json.dumps({**LINE, 'id': 'a'})}\n")
    with pytest.raises(PackError, match=r"line 2.*two tasks 'a'"):
        tasks.read(file)
    with pytest.raises(PackError, match="cannot be read"):
        tasks.read(tmp_path / "none")


@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_end_in_anything_but_a_sentence(data: bytes) -> None:
    with pytest.raises(PackError):
        tasks.parse("x", data, "x")


def test_pictures_and_sounds_stand_beside_the_set_and_count_in_its_digest(tmp_path: Path) -> None:
    file, sound = tmp_path / "mine.jsonl", tmp_path / "a.wav"
    right = {"kind": "transcript", "text": "two words", "within": 0.5}
    file.write_text(json.dumps({"audio": "a.wav", "checks": [right]}))
    digests = set()
    for content in (b"one", b"two"):
        sound.write_bytes(content)
        read = tasks.read(file)
        digests.add(read.sha256)
        assert read.tasks[0].audio == sound.resolve() and read.tasks[0].turns[0].text == ""
    assert len(digests) == 2
    check = tasks.read(file).tasks[0].turns[0].checks[0]
    for said, wrong in (("Two words.", 0), ("two birds", 0), ("Too many birds.", 1)):
        assert len(failures(Answer(said), [check])) == wrong, said
    seeing = tasks.shipped("vision")
    assert len(seeing.tasks) == len(SHIPPED) + 9 and seeing.sha256 != tasks.shipped().sha256
    for task in seeing.tasks:
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in task.images)
    with pytest.raises(PackError, match="no recordings of speech"):
        tasks.shipped("audio")
