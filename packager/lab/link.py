"""The open conversation with an agent on a device: one command, one answer, in turn."""

from __future__ import annotations

import contextlib
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

from packager.errors import ExitCode, PackError, bad_input, no_room, unreachable, usage
from packager.escapes import bare
from packager.foreign import parse_json
from packager.json_values import JsonObject
from packager.lab.answers import not_ours
from packager.lab.transport import last_line
from packager.limits import AGENT_LINE_BYTES

PROTOCOL = 2
"""The agent's, see docs/lab.md."""

ILLEGAL_INSTRUCTION = 4
_KILLED = 9
_CRASHES = {6: "it gave up", 7: "a bus error", 8: "an arithmetic error", 11: "a segmentation fault"}
"""Signals of Linux by which a program ends that is at fault itself."""
_SHELL_SIGNAL = 128
_GRACE_S = 5.0
_CODES = (ExitCode.USAGE, ExitCode.SOURCE, ExitCode.INPUT, ExitCode.RESOURCE)
"""What our own code on a device may end with."""
_TAIL = 1 << 16


def waited_for(command: str) -> str:
    """A command of the POSIX shell in such words that its shell waits for it: what ends the program
    arrives as an exit code. A program in its shell's place (`exec`) ends the shell by the signal
    too, and ssh tells every signal as 255, as it does a cut connection."""
    return f"{command}; exit $?"


class Dead(PackError):
    """The agent has ended without being asked to; `signal` is what ended it, 0 for anything
    else."""

    def __init__(self, message: str, hint: str, code: ExitCode, signal: int = 0) -> None:
        super().__init__(message, hint, code)
        self.signal = signal


class Link:
    """A running agent. `argv` starts it: a transport's child process, or the agent itself.

    `deadline_s` is how long the device may be silent before it counts as gone.
    """

    def __init__(self, argv: Sequence[str], deadline_s: float = 600) -> None:
        self._deadline_s = deadline_s
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self._child.stdin and self._child.stdout and self._child.stderr
        self._in, self._out = self._child.stdin, self._child.stdout
        self._held = bytearray()
        self._said = b""
        self._lost: PackError | None = None
        # Read all the time: an engine that complains would fill the pipe and stop.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.hello = self._greeted()

    def ask(self, command: str, payload: bytes = b"") -> JsonObject:
        """The answer to one command. Raises PackError for a refusal, Dead where the agent is
        gone."""
        self.tell(command, payload)
        return self.hear()

    def tell(self, command: str, payload: bytes = b"") -> None:
        """Send a command; its answers are fetched by `hear`. A device that was lost once is not
        waited for again: whoever tidies up behind a failure gets the same sentence at once."""
        if self._lost is not None:
            raise self._lost
        data = memoryview(command.encode() + b"\n" + payload)
        try:
            while data:
                data = data[self._in.write(data) or 0 :]
        except OSError:
            self._gone()

    def hear(self) -> JsonObject:
        """The next line of an answer."""
        looked = 0
        while (end := self._held.find(b"\n", looked)) < 0:
            looked = len(self._held)
            if looked > AGENT_LINE_BYTES:
                raise not_ours("a line of it does not end")
            self._more()
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        try:
            answer = parse_json(line.decode("utf-8", "replace").encode(), "An answer")
        except PackError:
            raise not_ours() from None
        if not isinstance(answer, dict):
            raise not_ours()
        if "error" in answer:
            raise _refusal(answer)
        return answer

    def raw(self, size: int) -> bytes:
        """So many bytes behind a line."""
        while len(self._held) < size:
            self._more()
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def close(self) -> None:
        """End the agent, which leaves when its input ends."""
        for stream in (self._in, self._out):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._listener.join()
        assert self._child.stderr
        self._child.stderr.close()

    def _greeted(self) -> JsonObject:
        try:
            hello = self.ask("hello")
            if hello.get("protocol") != PROTOCOL:
                raise usage(
                    f"The agent speaks protocol {hello.get('protocol')!r}, not {PROTOCOL}.",
                    "Build it again: qwen-pack agent build.",
                )
        except BaseException:
            self.close()
            raise
        return hello

    def _more(self) -> None:
        until = time.monotonic() + self._deadline_s
        while not select.select([self._out], [], [], 1.0)[0]:
            if time.monotonic() > until:
                self._lost = unreachable(
                    f"The device sent nothing for {self._deadline_s:.0f} seconds.",
                    "Check that it is awake and connected.",
                )
                raise self._lost
        chunk = self._out.read(1 << 20)
        if not chunk:
            self._gone()
        self._held += chunk

    def _listen(self) -> None:
        assert self._child.stderr
        while piece := self._child.stderr.read(4096):
            self._said = (self._said + piece)[-_TAIL:]

    def _gone(self) -> NoReturn:
        """Raise the sentence for an agent that is no longer there."""
        self._lost = self._death()
        raise self._lost

    def _death(self) -> Dead:
        """How the agent ended."""
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            code = self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._listener.join()
        last_words = self._said.decode("utf-8", "replace")
        # A child of ours ends by a signal as a negative number, a shell there tells it above 128.
        number = -code if code < 0 else max(0, code - _SHELL_SIGNAL)
        if number == ILLEGAL_INSTRUCTION:
            return Dead(
                "The device does not know an instruction of the agent.",
                "Build one for it: qwen-pack agent build --for aarch64.",
                ExitCode.RESOURCE,
                number,
            )
        if number == _KILLED:
            return Dead(
                "The agent was killed on the device, most likely because memory ran out there.",
                "Close other programs on it, or take a smaller variant or a shorter context.",
                ExitCode.RESOURCE,
                number,
            )
        if number in _CRASHES:
            return Dead(
                f"The agent crashed on the device: {_CRASHES[number]} (signal {number}).",
                "Name another agent with --agent: `qwen-pack agent list` shows them.",
                ExitCode.RESOURCE,
                number,
            )
        if code in (126, 127):
            return Dead(
                f"The device does not run the agent: {last_line(last_words)}.",
                "Its folder may be mounted noexec: name another one in --on, or another agent.",
                ExitCode.RESOURCE,
            )
        how = (
            f"{last_line(last_words)} (exit code {code})"
            if last_words.strip()
            else f"exit code {code}"
        )
        return Dead(
            f"The connection to the agent ended: {how}.",
            "Check cable, network and power of the device, and run it again.",
            ExitCode.SOURCE,
            number if number < _SHELL_SIGNAL - 1 else 0,
        )


def _refusal(answer: JsonObject) -> PackError:
    """What the agent could not do, with the exit code of its kind. Our own code there tells exit
    code and hint itself."""
    text = bare(str(answer["error"]).strip())
    text = f"On the device: {text}{'' if text.endswith('.') else '.'}"
    code, kind = answer.get("code"), answer.get("kind")
    if isinstance(code, int) and code in _CODES:
        return PackError(text, bare(str(answer.get("hint") or "")), ExitCode(code))
    if kind == "room":
        return no_room(text, "Take a shorter context or a smaller variant.")
    return bad_input(text, "Build the package again.") if kind == "input" else usage(text)
