"""The HTTP side: /v1/chat/completions with streaming, /v1/audio/transcriptions; or /v1/embeddings,
or /v1/rerank; /v1/models, /health."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import ExitCode, PackError, bad_input, from_foreign, usage

from . import adapters, retrieval
from . import settings as settings_file
from .answers import Answer, Gone, Outcome, Queue
from .connections import CHAT, LARGEST, LONGEST, TRANSCRIPTIONS, BoundedServer, JsonHandler, room
from .refused import Refused
from .replies import Piece
from .settings import AGAIN, Settings, kind_of

if TYPE_CHECKING:
    from .requests import Request

# Any: JSON of OpenAI's protocol on its way out, written here and read nowhere.


class Server(BoundedServer):
    """A model, the queue before it, and a thread per connection."""

    def __init__(
        self, address: tuple[str, int], engine: Any, known: Settings, waiting: int
    ) -> None:
        super().__init__(address, Handler)
        self.engine, self.settings = engine, known
        self.queue = Queue(waiting)


class Handler(JsonHandler):
    """The requests of one connection."""

    server: Server

    def do_GET(self) -> None:
        """/health and /v1/models."""
        names = [self.server.settings.name, *self.server.settings.choices]
        known = {
            "/health": {"status": "ok"},
            "/v1/models": {
                "object": "list",
                "data": [
                    {"id": name, "object": "model", "owned_by": "qwen-pack"} for name in names
                ],
            },
        }
        self.page(known)

    def do_POST(self) -> None:
        """What the package is made for: /v1/chat/completions and /v1/audio/transcriptions,
        /v1/embeddings or /v1/rerank."""
        known = self.server.settings
        takes_files = known.sees or known.hears or self.path == TRANSCRIPTIONS
        self.with_body(LARGEST if takes_files else LONGEST, self._read)

    def _read(self, body: bytes) -> None:
        try:
            self._answer(body)
        except Refused as refusal:
            self.refuse(str(refusal), refusal.status)
        except (Gone, OSError):
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self.close_connection = True
            self.refuse("the engine failed; the server's own output says how", 500)

    def _answer(self, body: bytes) -> None:
        server = self.server
        task = server.settings.task
        if self.path == TRANSCRIPTIONS:
            self._write_down(body)
            return
        if self.path != retrieval.PATHS.get(task, CHAT):
            raise Refused("there is no such page", 404)
        if task == "generate":
            # Late: vectors and scores do without.
            from .requests import parse

            request = parse(body, server.settings)
            with server.queue.turn(self.gone):
                _Reply(self, request).give()
            return
        compute = retrieval.answer(server.engine, server.settings, body)
        with server.queue.turn(self.gone):
            answer = compute(self.gone)
        self.send(200, answer)

    def _write_down(self, body: bytes) -> None:
        # Late: few packages listen.
        from . import transcriptions

        server = self.server
        transcriptions.check(server.settings)
        kind = self.headers.get("Content-Type", "")
        asked = transcriptions.parse(kind, body, server.settings, server.engine)
        with server.queue.turn(self.gone):
            transcriptions.Reply(self, asked, server.engine, server.settings).give()


class _Reply:
    """An answer in OpenAI's form: whole, or in events as it is written."""

    def __init__(self, handler: Handler, request: Request) -> None:
        self._handler, self._request = handler, request
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.adapter or handler.server.settings.name,
        }
        self._texts = {"thought": "", "text": ""}
        self._begun = False

    def give(self) -> None:
        server = self._handler.server
        answer = Answer(server.engine, server.settings, self._request)
        on_piece = self._event if self._request.stream else self._keep
        outcome = answer.run(on_piece, self._handler.gone)
        if self._request.stream:
            self._end(outcome)
        else:
            self._whole(outcome)

    def _keep(self, piece: Piece) -> None:
        self._texts[piece.kind] += piece.text

    def _whole(self, outcome: Outcome) -> None:
        message: dict[str, object] = {"role": "assistant", "content": self._texts["text"] or None}
        if not outcome.calls:
            message["content"] = self._texts["text"]
        if self._texts["thought"]:
            message["reasoning_content"] = self._texts["thought"]
        if outcome.calls:
            message["tool_calls"] = [{"id": _id(), **call} for call in outcome.calls]
        choice = {"index": 0, "message": message, "finish_reason": outcome.finish, "logprobs": None}
        whole = {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(outcome),
        }
        self._handler.send(200, whole)

    def _event(self, piece: Piece) -> None:
        name = "reasoning_content" if piece.kind == "thought" else "content"
        self._delta({name: piece.text})

    def _delta(self, delta: dict[str, object], finish: str | None = None) -> None:
        if not self._begun:
            self._begin()
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        self._handler.event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})

    def _begin(self) -> None:
        self._begun = True
        self._handler.begin_events()
        self._delta({"role": "assistant", "content": ""})

    def _end(self, outcome: Outcome) -> None:
        for place, call in enumerate(outcome.calls):
            self._delta({"tool_calls": [{"index": place, "id": _id(), **call}]})
        self._delta({}, outcome.finish)
        if self._request.usage:
            rest = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(outcome)}
            self._handler.event({**self._head, **rest})
        self._handler.wfile.write(b"data: [DONE]\n\n")


def _id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _usage(outcome: Outcome) -> dict[str, int]:
    total = outcome.prompt_tokens + outcome.new_tokens
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.new_tokens,
        "total_tokens": total,
    }


def main(usual: Path | None) -> None:
    """Load the model and serve until somebody ends it; `usual` are the settings where the command
    line names none, which it must where there are none. Ends with a sentence and an exit code of
    packager.errors where that does not come to pass."""
    try:
        _serve(usual)
    except PackError as error:
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(int(error.exit_code)) from None
    except KeyboardInterrupt:
        raise SystemExit(int(ExitCode.INTERRUPTED)) from None


def _serve(usual: Path | None) -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument(
        "--settings",
        type=Path,
        default=usual,
        required=usual is None,
        help="of another package",
    )
    own.add_argument(
        "--while-stdin",
        action="store_true",
        help="end with standard input, as for a program that started this one",
    )
    first, _ = own.parse_known_args()
    known = settings_file.read(first.settings)
    parser = argparse.ArgumentParser(
        description="Serve this package over OpenAI's protocol.", parents=[own]
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--unit", default=known.unit, help="CPU, GPU or NPU")
    parser.add_argument(
        "--waiting", type=room, default=16, help="requests that may wait for their turn"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="FOLDER",
        help="an adapter package that was built for this one; repeatable",
    )
    given = parser.parse_args()
    if given.adapter and known.choices:
        raise usage(
            "The adapters of this export are chosen by the `model` of a request.",
            "Leave --adapter out.",
        )
    known = replace(
        known,
        adapters=adapters.files(given.adapter, known),
        choices=adapters.chosen(known),
    )
    if os.getpid() == 1:
        # The first process of a container is ended by no signal that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for name, value in known.environment.items():
        os.environ.setdefault(name, value)
    if given.while_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    engine = _opened(known, given.unit)
    server = Server((given.host, given.port), engine, known, given.waiting)
    print(server.address_of(given.host), flush=True)
    server.serve_forever()


def _opened(known: Settings, unit: str) -> Any:
    """The engine, as `loaded` gives it. Raises PackError for whatever keeps it from loading."""
    try:
        return loaded(known, unit)
    except ImportError as error:
        raise usage(
            f"{error.name or 'A module'} cannot be imported here: {_end(error)}.",
            "The README.md beside serve.py says what is to be installed.",
        ) from None
    except Exception as error:  # an engine's own: its files are read by it alone
        known_one = from_foreign(error)
        if known_one is not None:
            raise known_one from None
        raise bad_input(
            f"{known.runtime} does not open {known.model}: {type(error).__name__}: {_end(error)}.",
            AGAIN if unit == known.unit else f"{AGAIN} Or try it without --unit.",
        ) from None


def _end(error: Exception) -> str:
    """The last line of what an error says; before it engines write where in their code it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".")[:300] if lines else "no reason is given"


def loaded(known: Settings, unit: str) -> Any:
    """The engine of a package, from the module beside this one that is made for it."""
    kind = "vectors"
    if known.task == "generate":
        kind = kind_of(known.runtime, sees=known.sees, hears=known.hears)
        # What a request takes must be missed now and not then: the second by the process that
        # renders.
        import_module(".requests", __package__)
        import_module("jinja2")
    module = f".{kind}_{known.runtime.replace('.', '_')}"
    return import_module(module, __package__).Engine(known, unit)


def _end_with_stdin() -> None:
    """End at once, also while the engine loads or computes."""
    sys.stdin.buffer.read()
    os._exit(0)
