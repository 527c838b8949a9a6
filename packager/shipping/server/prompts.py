"""Messages of OpenAI's protocol as the prompt that the model was trained on."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .attached import OTHER_PARTS, Attached
from .parsed import Parsed
from .refused import Refused

# Any: the client's JSON. `messages_of` and `tools_of` look at every field that a prompt is made of;
# this program stands alone and has no types of the packager's.

WAIT_S = 30.0
"""How long a request waits while the prompts of others are made."""


class Renderer:
    """The process of rendering.py: started when it is needed, and again where a template has ended
    it. One prompt is made at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def render(self, template: str, variables: Parsed) -> str:
        """The prompt. Raises Refused where the template does not take it, or does not end."""
        if not self._turn.acquire(timeout=WAIT_S):
            raise Refused("too many prompts are waiting", 503)
        try:
            reply = self._asked(json.dumps({"template": template, "variables": variables}).encode())
        finally:
            self._turn.release()
        if reply is None:
            raise Refused(
                "the model's chat template does not accept this conversation: it did not end "
                "within 10 seconds, or took more memory than any prompt needs"
            )
        if "error" in reply:
            raise Refused(
                f"the model's chat template does not accept this conversation: {reply['error']}"
            )
        return reply["text"]

    def _asked(self, line: bytes) -> dict[str, str] | None:
        """What the process answers; None where it has ended instead."""
        if self._child is None or self._child.poll() is not None:
            self._child = _started()
        there, back = self._child.stdin, self._child.stdout
        assert there is not None and back is not None
        try:
            there.write(line + b"\n")
            there.flush()
            answer = back.readline()
        except BrokenPipeError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.close()
            return None
        reply: dict[str, str] = json.loads(answer)
        return reply

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def _started() -> subprocess.Popen[bytes]:
    # -P: modules beside the file have the names of others'. In a session of its own the keys that
    # end the server do not reach it: it ends with the pipe.
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("rendering.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


_renderer = Renderer()


def render(template: str, messages: list[Parsed], **variables: Any) -> str:
    """The prompt, as transformers' apply_chat_template writes it. Raises Refused where the template
    does not take it, or takes more time or memory than any prompt."""
    given = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
    return _renderer.render(template, {**given, "messages": messages})


def messages_of(given: Any, attached: Attached | None = None) -> list[Parsed]:
    """A request's messages as a template takes them; the files that they bring are added to
    `attached`, without which the model takes text alone. Raises Refused for what is none."""
    if not isinstance(given, list) or not given:
        raise Refused("`messages` is empty, or is not a list")
    attached = attached or Attached()
    return [_message(row, index, attached) for index, row in enumerate(given)]


def _message(row: Any, index: int, attached: Attached) -> Parsed:
    if not isinstance(row, dict) or not isinstance(row.get("role"), str):
        raise Refused(f"messages[{index}] is not an object with a `role`")
    role = {"developer": "system"}.get(row["role"], row["role"])
    if role not in ("system", "user", "assistant", "tool"):
        raise Refused(f"messages[{index}] has the unknown role {role!r}")
    calls = row.get("tool_calls") or []
    if not isinstance(calls, list):
        raise Refused(f"messages[{index}] has `tool_calls` that are not a list")
    if row.get("content") is None and not calls:
        raise Refused(f"messages[{index}] has no `content`")
    message: Parsed = {
        "role": role,
        "content": _content(row.get("content"), index, attached),
    }
    if isinstance(row.get("reasoning_content"), str):
        message["reasoning_content"] = row["reasoning_content"]
    if calls:
        message["tool_calls"] = [_call(call, index) for call in calls]
    return message


def _content(content: Any, index: int, attached: Attached) -> str | list[dict[str, str]]:
    """The text of a message; with pictures or sound its parts, as the templates of models that take
    them do."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    rows = [_part(part, index, attached) for part in parts]
    if any(row["type"] != "text" for row in rows):
        return rows
    return "".join(row["text"] for row in rows)


def _part(part: Any, index: int, attached: Attached) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in OTHER_PARTS:
        return attached.take(part, kind, index)
    if kind != "text" or not isinstance(part.get("text"), str):
        raise Refused(f"messages[{index}] has `content` that is not text")
    return {"type": "text", "text": part["text"]}


def _call(call: Any, index: int) -> Parsed:
    """A call as templates take it: its arguments as an object, for the model was shown no string of
    JSON."""
    try:
        function = call["function"]
        name, arguments = function["name"], function["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "{}")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise TypeError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Refused(
            f"messages[{index}] has a tool call without a name, or arguments that are not an object"
        ) from None
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tools_of(given: Any) -> list[Parsed] | None:
    """A request's tools; None where it brings none. Raises Refused for what is not a function."""
    if given is None or given == []:
        return None
    if not isinstance(given, list):
        raise Refused("`tools` is not a list")
    for index, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused(f"tools[{index}] is not a function with a name")
    return given
