"""The server's parts without an engine: prompts as transformers makes them, replies taken apart,
requests that wait."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import sandbox
from packager.checkpoint.template import render_both_apart
from packager.quality.parity_corpus import CONVERSATIONS
from packager.shipping.server import connections, prompts, requests
from packager.shipping.server.answers import Answer, Gone, Queue
from packager.shipping.server.prompts import messages_of, render
from packager.shipping.server.refused import Refused
from packager.shipping.server.replies import Piece, Splitter, call_of
from packager.shipping.server.requests import Request
from packager.shipping.server.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.openai_form import as_a_client_sends_it
from tests.support.serving import Letters
from tests.support.shipping_packages import CHATML

pytestmark = pytest.mark.slow

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"properties": {"code": {"type": "string"}, "n": {"type": "integer"}}},
        },
    }
]
END = 0


def test_the_servers_prompts_are_those_of_the_checkpoints_own_template(tmp_path: Path) -> None:
    own = speech.own_templates(TINY)
    for profile in (Profile(), Profile("off", 64, "Be brief.", tuple(TOOLS))):
        template = speech.of_folder(TINY, profile).template
        assert template is not None
        for name, conversation in CONVERSATIONS.items():
            sent = dict(conversation)
            messages = messages_of([as_a_client_sends_it(row) for row in sent.pop("messages")])
            assert render(template, messages, **sent) == own.render(
                profile.applied(conversation)
            ), name


def test_genuine_templates_are_rendered_as_everywhere_else(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "qwen" / "templates").glob("*.jinja")):
        text = path.read_text()
        wanted = render_both_apart(text, text, CONVERSATIONS, tmp_path / "log")
        for (name, conversation), (want, _) in zip(CONVERSATIONS.items(), wanted, strict=True):
            sent = dict(conversation)
            try:
                got = render(text, sent.pop("messages"), **sent)
            except Refused:
                got = None
            assert got == want, (path.name, name)


REPLY = (
    'hm\n</think>\n\nWell <b>.\n<tool_call>\n{"name": "f", "arguments": {"n": '
    "1}}\n</tool_call>\nBye <tool_ca"
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_a_reply_is_taken_apart_in_whatever_pieces_it_comes(sizes: list[int]) -> None:
    splitter, pieces, at, turn = Splitter(True, True), [], 0, 0
    while at < len(REPLY):
        pieces += splitter.feed(REPLY[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    pieces += splitter.end()
    texts = {
        kind: "".join(piece.text for piece in pieces if piece.kind == kind)
        for kind in ("thought", "text", "call")
    }
    assert texts["thought"] == "hm"
    assert texts["text"] == "Well <b>.Bye <tool_ca"
    assert json.loads(texts["call"])["name"] == "f"


def test_a_call_that_never_ends_is_shown_as_text() -> None:
    splitter = Splitter(False, True)
    pieces = [*splitter.feed('<tool_call>\n{"name"'), *splitter.end()]
    assert pieces == [Piece("text", '<tool_call>\n{"name"')]


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"name": "f", "arguments": {"n": 1}}', {"n": 1}),
        (
            "<function=f>\n<parameter=code>\n1\n</parameter>\n<parameter=n>\n2\n</parameter>\n</function>",
            {"code": "1", "n": 2},
        ),
        ("<function=g>\n<parameter=x>\n[1]\n</parameter>\n</function>", {"x": [1]}),
        ('{"name": "f"}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_calls_are_read_in_both_of_qwens_forms(body: str, arguments: Any) -> None:
    call = call_of(body, TOOLS)
    assert (None if call is None else json.loads(call["function"]["arguments"])) == arguments


def request(prompt: str = "hi", **more: Any) -> Request:
    values: dict[str, Any] = {
        "tools": [],
        "most": 1000,
        "sampling": {},
        "stops": (),
        "schema": None,
    }
    values |= {"opened": False, "stream": False, "usage": False, "budget": None}
    return Request(prompt, **{**values, **more})


def answered(engine: Letters, asked: Request, context: int = 1000) -> tuple[dict[str, str], Any]:
    known = Settings(
        "x", "x", Path(), CHATML, context, "f16", "CPU", frozenset((END,)), (), {}, None
    )
    texts = {"thought": "", "text": ""}

    def keep(piece: Piece) -> None:
        texts[piece.kind] += piece.text

    return texts, Answer(engine, known, asked).run(keep, lambda: False)


def test_a_thought_over_its_budget_is_ended_and_the_answer_follows() -> None:
    engine = Letters("thinking on and on and on", "Yes.")
    texts, outcome = answered(engine, request("<think>\n", opened=True, budget=8))
    assert texts == {"thought": "thinking", "text": "Yes."}
    assert engine.asked[1][0] == "<think>\nthinking\n</think>\n\n"
    assert (outcome.finish, outcome.new_tokens) == ("stop", 12)


def test_what_ends_a_thought_takes_its_place_in_the_context() -> None:
    prompt, closing = "<think>\n", "\n</think>\n\n"
    context = len(prompt) + 8 + len(closing) + 3
    engine = Letters("thinking on and on and on", "Yes it is.")
    asked = request(prompt, opened=True, budget=8)
    texts, outcome = answered(engine, asked, context=context)
    assert texts == {"thought": "thinking", "text": "Yes"} and outcome.finish == "length"
    full = Letters("thinking on and on and on")
    texts, outcome = answered(full, asked, context=context - 5)
    assert texts == {"thought": "thinking", "text": ""} and outcome.finish == "length"


@pytest.mark.parametrize("parameters", [None, [], "x", {"properties": [1]}, {"properties": None}])
def test_a_call_of_a_tool_whose_parameters_are_no_schema_is_still_read(parameters: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    call = call_of("<function=f>\n<parameter=n>\n2\n</parameter>\n</function>", tools)
    assert call is not None and json.loads(call["function"]["arguments"]) == {"n": 2}


def test_a_schema_holds_behind_the_thought_and_not_within_it() -> None:
    engine = Letters("hm</think>", '{"a": 1}')
    texts, _ = answered(engine, request("<think>\n", opened=True, schema="{}"))
    assert texts == {"thought": "hm", "text": '{"a": 1}'}
    assert [asked[2] for asked in engine.asked] == [None, "{}"]


def test_a_stop_text_ends_the_answer_also_where_it_comes_in_parts() -> None:
    texts, outcome = answered(Letters("one two STOP three"), request(stops=("STOP", "never")))
    assert (texts["text"], outcome.finish) == ("one two ", "stop")
    texts, outcome = answered(Letters("one two STO"), request(stops=("STOP",)))
    assert (texts["text"], outcome.finish) == ("one two STO", "stop")


def test_tool_calls_end_an_answer_as_such_and_a_broken_one_is_text() -> None:
    texts, outcome = answered(
        Letters('Ok.<tool_call>{"name": "f", "arguments": {}}</tool_call>'), request(tools=TOOLS)
    )
    assert texts["text"] == "Ok." and outcome.finish == "tool_calls" and len(outcome.calls) == 1
    texts, outcome = answered(Letters("<tool_call>x</tool_call>"), request(tools=TOOLS))
    assert texts["text"] == "<tool_call>x</tool_call>" and outcome.finish == "stop"


def test_an_answer_takes_no_more_than_the_context_holds() -> None:
    texts, outcome = answered(Letters("abcdef"), request("123456"), context=10)
    assert (texts["text"], outcome.finish) == ("abcd", "length")
    with pytest.raises(Refused, match="the context holds 6"):
        answered(Letters(""), request("123456"), context=6)


def test_what_is_no_request_is_refused_with_a_sentence() -> None:
    known = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)
    ask = [{"role": "user", "content": "x"}]
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    for asked, words in (
        ({"messages": [{**called, "tool_calls": 5}]}, "are not a list"),
        ({"messages": [{**called, "tool_calls": True}]}, "are not a list"),
        ({"messages": [{**called, "tool_calls": [5]}]}, "without a name"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "not valid JSON"),
        ({"messages": ask, "stop": ["\udfff"]}, "not valid JSON"),
        ({"messages": ask, "temperature": float("nan")}, "out of range"),
        ({"messages": ask, "tools": {"a": 1}}, "not a list"),
        ({"messages": ask, "stop": ["x" * 1025]}, "more than 1024 characters"),
    ):
        with pytest.raises(Refused, match=words):
            requests.parse(json.dumps(asked).encode(), known)
    for body in (b"[" * 100_000, b"\xff", b"5", b""):
        with pytest.raises(Refused, match=r"not (valid JSON|a JSON object)"):
            requests.parse(body, known)


def test_a_seed_of_zero_is_a_seed_and_a_top_p_of_zero_takes_the_likeliest() -> None:
    """Engines take both for `not given`."""
    drawn = {"temperature": 0.7, "top_p": 0.95}
    known = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), drawn, None)

    def sampling(**given: Any) -> dict[str, float]:
        body = {"messages": [{"role": "user", "content": "x"}], **given}
        return requests.parse(json.dumps(body).encode(), known).sampling

    assert sampling() == drawn
    assert (
        sampling(top_p=0)["temperature"] == sampling(top_p=0.0, temperature=2)["temperature"] == 0
    )
    seeds = {given: sampling(seed=given)["seed"] for given in (0, 1, 42, 2**32 - 1)}
    assert seeds[1] == 1 and seeds[42] == 42
    assert all(0 < seed < 2**32 - 1 for seed in seeds.values()) and len({*seeds.values()}) == 4


def test_a_prompt_of_more_control_tokens_than_the_context_holds_does_not_wait_for_its_turn() -> (
    None
):
    known = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)
    for mark, count in (("<|im_end|>", 100_000), ("<think>", 100), ("</tool_call>", 100)):
        body = {"messages": [{"role": "user", "content": mark * count}]}
        with pytest.raises(Refused, match=rf"has {count + 3} tokens or more, .* holds 100"):
            requests.parse(json.dumps(body).encode(), known)
    body = {"messages": [{"role": "user", "content": "<b>bold</b> " * 40}]}
    assert requests.parse(json.dumps(body).encode(), known).prompt


def test_a_limit_that_is_null_is_none_and_takes_none_from_the_other() -> None:
    known = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)

    def most(**given: Any) -> int:
        body = {"messages": [{"role": "user", "content": "x"}], **given}
        return requests.parse(json.dumps(body).encode(), known).most

    assert most(max_completion_tokens=None, max_tokens=5) == 5
    assert most(max_completion_tokens=3, max_tokens=5) == most(max_completion_tokens=3) == 3
    assert most() == most(max_tokens=None, max_completion_tokens=None) > 10**9


def test_an_answer_of_a_client_that_left_is_given_up() -> None:
    known = Settings("x", "x", Path(), CHATML, 100, "f16", "CPU", frozenset(), (), {}, None)
    with pytest.raises(Gone):
        Answer(Letters("abc"), known, request()).run(lambda piece: None, lambda: True)


def test_requests_wait_in_order_and_too_many_are_turned_away() -> None:
    queue, order, inside = Queue(1), [], threading.Event()

    def second() -> None:
        with queue.turn(lambda: False):
            order.append(2)

    with queue.turn(lambda: False):
        waiting = threading.Thread(target=second)
        waiting.start()
        while len(queue._waiting) < 2:
            inside.wait(0.01)
        with pytest.raises(Refused, match="waiting") as caught, queue.turn(lambda: False):
            pass
        assert caught.value.status == 503
        order.append(1)
    waiting.join(60)
    assert order == [1, 2]
    with queue.turn(lambda: False), pytest.raises(Gone), queue.turn(lambda: True):
        pass


def test_a_template_without_end_is_ended_and_the_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops of Jinja's, loops below it, and memory: each ends the process that renders, or is
    refused there, and the next prompt is made."""
    text = prompts.Path(prompts.__file__).with_name("rendering.py").read_text()
    # As an export lays them.
    server, checkpoint = tmp_path / "shipping" / "server", tmp_path / "checkpoint"
    for folder in (server, checkpoint):
        folder.mkdir(parents=True)
    shutil.copy(sandbox.__file__, checkpoint)
    shorter = server / "rendering.py"
    shorter.write_text(text.replace("SECONDS = 10.0", "SECONDS = 2.0"))
    assert shorter.read_text() != text
    monkeypatch.setattr(prompts, "__file__", str(server / "prompts.py"))
    renderer = prompts.Renderer()
    try:
        for hostile in (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{{ 7 ** (7 ** 11) }}",
            "{{ 'a' * 9999999999 }}",
        ):
            with pytest.raises(Refused, match="does not accept this conversation"):
                renderer.render(hostile, {})
            assert renderer.render("{{ a }}", {"a": "b"}) == "b"
        with pytest.raises(Refused, match="this conversation: no"):
            renderer.render("{{ raise_exception('no') }}", {})
    finally:
        renderer.close()


def test_a_template_is_rendered_in_the_sandbox_of_another_process_alone() -> None:
    with pytest.raises(Refused, match="unsafe"):
        render("{{ ''.__class__.__mro__ }}", [])
    with pytest.raises(Refused):
        render("{{ messages.append(1) }}", [])
    for object_of_the_host in ("{{ range }}", "{{ joiner() }}", "{{ 'a'.upper ~ '' }}"):
        with pytest.raises(Refused, match="not data"):
            render(object_of_the_host, [])
    with pytest.raises(Refused, match="surrogates"):
        render("{{ '\\ud800' }}", [])
    marked = "{% generation %}{{ messages[0].content }}{% endgeneration %}"
    assert render(marked, [{"role": "user", "content": "Hi"}]) == "Hi"
    folder = REPOSITORY / "packager" / "shipping" / "server"
    with_jinja = [path.name for path in folder.glob("*.py") if "jinja2 import" in path.read_text()]
    assert with_jinja == ["rendering.py"]


def test_a_length_that_no_request_has_is_refused_and_not_computed() -> None:
    class Echo(connections.JsonHandler):
        def do_POST(self) -> None:
            length = self.length(connections.LONGEST)
            if length is not None:
                self.send(200, self.rfile.read(length).decode())

    with connections.BoundedServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for length, status in (("2", 200), ("²", 413), ("9" * 5000, 413), ("-1", 413)):
            client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            client.request("POST", "/", b"ok", {"Content-Length": length.encode("latin-1")})
            assert client.getresponse().status == status, length[:9]
            client.close()
        server.shutdown()


def test_a_body_is_asked_for_where_it_is_read_and_a_refusal_of_one_arrives() -> None:
    class Echo(connections.JsonHandler):
        def do_POST(self) -> None:
            self.with_body(connections.LONGEST, lambda body: self.send(200, str(len(body))))

    def head(*rows: str) -> bytes:
        return "\r\n".join(["POST / HTTP/1.1", *rows, "", ""]).encode()

    most, expects = connections.LONGEST, "Expect: 100-continue"
    with connections.BoundedServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for asked, body, begins, ends in (
            ([expects, "Content-Length: 2"], b"ok", b"HTTP/1.1 100", b"2"),
            ([expects, f"Content-Length: {most + 1}"], b"", b"HTTP/1.1 413", b"}"),
            # More than the sockets hold: it is on its way while the answer comes.
            ([f"Content-Length: {4 * most}"], bytes(4 * most), b"HTTP/1.1 413", b"}"),
            (["Transfer-Encoding: chunked", "Content-Length: 2"], b"ok", b"HTTP/1.1 413", b"}"),
        ):
            with socket.create_connection(("127.0.0.1", server.server_port), 60) as client:
                client.sendall(head(*asked))
                told = client.recv(12) if expects in asked else b""
                client.sendall(body)
                if begins.endswith(b"413"):
                    while piece := client.recv(1 << 16):
                        told += piece
                    assert b"\r\nConnection: close\r\n" in told
                else:
                    while not told.endswith(b"\r\n\r\n2"):
                        told += client.recv(1 << 16)
            assert told.startswith(begins) and told.endswith(ends), asked
        server.shutdown()
