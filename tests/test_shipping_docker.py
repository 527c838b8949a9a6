"""The runner that a container starts: it answers over HTTP with the package's own model, through
its engine."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from typing import Any

import pytest

from packager.chat import speech
from packager.process import run_job
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.serving import answering
from tests.support.shipping_packages import exported, finish, write
from tests.support.tiers import thorough
from training.questions import held_out
from training.tasks import TOOLS as ALL_TOOLS

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
RECIPES = {"openvino": "int8_sym", "onnxruntime": "int8_sym_b32"}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["openvino", thorough("onnxruntime")])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where serve.py of an exported package answers."""
    engine = request.param
    place = tmp_path_factory.mktemp(engine)
    runtime = registry.runtime(engine)
    recipe = runtime.recipe(RECIPES[engine])
    arguments = {
        "checkpoint": str(TINY),
        "recipe": asdict(recipe),
        "workload": {"context": 512},
        "out": str(place / "artifact"),
    }
    finish(run_job(runtime.build_job, arguments, place / "log"))
    files = {f"model/{path.name}": path.read_bytes() for path in (place / "artifact").iterdir()}
    spoken = speech.of_folder(TINY)
    files["chat_template.jinja"] = str(spoken.template).encode()
    ends = [
        {"id": number, "text": text}
        for number, text in zip(spoken.ends, spoken.end_texts, strict=True)
    ]
    chat = {"chat": {"ends": ends}}
    more: dict[str, Any] = {
        "runtime": {"name": engine, "version": "1"},
        "recipe": {"id": recipe.id, **asdict(recipe)},
        "workload": {"context": 512},
        **chat,
    }
    out = exported(write(place / "package", files, more), "docker", place / "out")
    with answering(["serve.py", "--port", "0"], out, {}) as address:
        yield address


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/chat/completions", data), timeout=60
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_answers_questions_as_the_model_was_trained_to(server: str) -> None:
    sums = list(islice((task for task in held_out("serve", 400) if task.kind == "sum"), 4))
    assert sums
    for task in sums:
        code, answer = post(
            server, {"messages": [*task.messages], "temperature": 0, "max_tokens": 120}
        )
        assert code == 200
        (choice,) = answer["choices"]
        text = choice["message"]["content"]
        assert choice["finish_reason"] == "stop" and text.lstrip("-").isdigit(), choice
        usage = answer["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] < 512


def test_an_answer_ends_where_it_was_told_to(server: str) -> None:
    code, answer = post(
        server,
        {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 2},
    )
    assert (code, answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (
        200,
        2,
        "length",
    )


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ({}, "empty"),
        ([1], "not a JSON object"),
        ({"messages": [{"role": "user"}]}, "no `content`"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "not text"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "what is this?"},
                            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}},
                        ],
                    }
                ]
            },
            "brings a picture, and this model was built for text alone",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
            "not a function",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"},
            "auto or none",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "xml"}},
            "json_schema",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, "one answer"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "["}}],
                    }
                ]
            },
            "not an object",
        ),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}, "out of range"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": 1e9}, "out of range"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "true or false"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "the context holds 512"),
    ],
    ids=range(18),
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    server: str, body: Any, word: str
) -> None:
    code, answer = post(server, body)
    assert code == 400 and word in answer["error"]["message"]


def test_it_says_that_it_is_well_and_what_it_serves_and_nothing_else(server: str) -> None:
    root = server.removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}
    with urllib.request.urlopen(f"{server}/models", timeout=10) as answer:
        assert [row["id"] for row in json.load(answer)["data"]] == ["tiny"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{root}/etc/passwd", timeout=10)
    connection = http.client.HTTPConnection(root.removeprefix("http://"), timeout=10)
    connection.request("POST", "/v1/chat/completions", headers={"Content-Length": str(1 << 40)})
    assert connection.getresponse().status == 413
    connection.close()


@pytest.fixture
def client(server: str) -> Iterator[Any]:
    """OpenAI's own client."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server, api_key="none", max_retries=0, timeout=60) as found:
        yield found


ASKED = next(task for task in held_out("serve", 400) if task.kind == "sum").messages
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
]


def test_a_stream_says_what_a_whole_answer_does_with_the_thought_apart(client: Any) -> None:
    more = {"model": "tiny", "messages": [*ASKED], "temperature": 0, "max_tokens": 120}
    whole = client.chat.completions.create(**more)
    thought, text, finish, usage = "", "", None, None
    for event in client.chat.completions.create(
        **more, stream=True, stream_options={"include_usage": True}
    ):
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
    message = whole.choices[0].message
    assert (text, finish) == (message.content, "stop")
    assert thought == (getattr(message, "reasoning_content", None) or "")
    assert "<think>" not in text and "</think>" not in text + thought
    assert usage.total_tokens == whole.usage.total_tokens


def test_an_answer_under_a_schema_is_json_of_that_form(client: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["ok", "kind"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    more: dict[str, Any] = {
        "model": "tiny",
        "messages": [*ASKED],
        "temperature": 0,
        "max_tokens": 100,
    }
    answer = client.chat.completions.create(**more, response_format=form)
    found = json.loads(answer.choices[0].message.content)
    assert sorted(found) == ["kind", "ok"] and found["kind"] in ("a", "b")


def test_a_client_that_leaves_frees_the_engine_for_those_who_wait(client: Any) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=[*ASKED], stream=True, temperature=2, max_tokens=400
    )
    next(iter(stream))
    stream.close()
    with ThreadPoolExecutor(3) as pool:
        more = {"model": "tiny", "messages": [*ASKED], "temperature": 0, "max_tokens": 60}
        answers = list(pool.map(lambda _: client.chat.completions.create(**more), range(3)))
    assert len({answer.choices[0].message.content for answer in answers}) == 1


def test_two_clients_at_once_get_what_each_would_get_alone(client: Any) -> None:
    sums = islice((task for task in held_out("two at once", 400) if task.kind == "sum"), 2)
    more: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 60}
    asked = [{**more, "messages": [*task.messages]} for task in sums]
    alone = [client.chat.completions.create(**one).choices[0].message.content for one in asked]
    assert len(set(alone)) == 2
    both = threading.Barrier(2)

    def streamed(one: dict[str, Any]) -> str:
        both.wait(timeout=30)
        events = client.chat.completions.create(**one, stream=True)
        return "".join(choice.delta.content or "" for event in events for choice in event.choices)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(streamed, asked)) == alone


def test_an_answer_ends_before_a_stop_text(client: Any) -> None:
    more = {"model": "tiny", "messages": [*ASKED], "temperature": 0, "max_tokens": 60}
    whole = client.chat.completions.create(**more).choices[0].message.content
    assert len(whole) >= 1
    answer = client.chat.completions.create(**more, stop=whole[-1]).choices[0]
    assert (answer.message.content, answer.finish_reason) == (
        whole[: whole.index(whole[-1])],
        "stop",
    )


def test_a_conversation_with_tools_is_taken_in_openais_form(client: Any) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Rom"}'},
    }
    messages = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, tools=TOOLS, temperature=0, max_tokens=60
    )
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    bare = client.chat.completions.create(
        model="tiny", messages=[*ASKED], temperature=0, max_tokens=1
    )
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens + 30


def test_a_tool_call_of_the_model_comes_as_one_whole_and_streamed_and_its_result_is_told(
    client: Any,
) -> None:
    tasks = list(islice((task for task in held_out("calls", 800) if task.kind == "tool"), 3))
    for task in tasks:
        more: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 120}
        more |= {"messages": [*task.messages], "tools": task.tools}
        answer = client.chat.completions.create(**more).choices[0]
        assert answer.finish_reason == "tool_calls" and answer.message.content is None, answer
        (call,) = answer.message.tool_calls
        # Which tool a model of this size takes, and with what, is a guess; the form is not.
        assert call.function.name in ALL_TOOLS
        assert set(json.loads(call.function.arguments)) == set(
            ALL_TOOLS[call.function.name]["properties"]
        )
        streamed, finish = [], None
        for event in client.chat.completions.create(**more, stream=True):
            for choice in event.choices:
                streamed += choice.delta.tool_calls or []
                finish = choice.finish_reason or finish
                assert "<tool_call>" not in (choice.delta.content or "")
        (piece,) = streamed
        assert finish == "tool_calls" and piece.id
        assert piece.function.model_dump() == call.function.model_dump()
    told = [
        *task.messages,
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "rain", "degrees": 7}'},
    ]
    last = client.chat.completions.create(**{**more, "messages": told}).choices[0]
    assert last.finish_reason == "stop" and last.message.content
