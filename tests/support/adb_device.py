"""A stand-in for Android's device daemon: it speaks adb's transport protocol on loopback, and runs
commands on this machine. The client is the real adb; no Android is behind it.

Spoken: CNXN without keys, OPEN of `shell,v2,raw:`, WRTE, OKAY and CLSE. Source of the numbers: AOSP,
packages/modules/adb, protocol.txt and shell_protocol.h.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_CNXN, _OPEN, _OKAY, _CLSE, _WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
_VERSION = 0x01000000
"""With sums of the data, as every client accepts."""
_MOST_DATA = 1 << 18
_BANNER = b"device::ro.product.name=standin;ro.product.model=Stand-in;features=shell_v2,cmd"
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_PIECE = 1 << 15

PROPERTIES = {
    "ro.build.version.sdk": "34",
    "ro.product.manufacturer": "qwen-pack",
    "ro.product.model": "Stand-in",
    "ro.soc.model": "none",
}


class Device:
    """The daemon. `variables` are those of what it runs; `unplug` cuts every connection."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[_Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"adb:127.0.0.1:{self.port}"

    def unplug(self) -> None:
        for connection in self._open:
            connection.end()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.unplug()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                found, _ = self._listener.accept()
                self._open.append(_Connection(found, self.variables))


class _Connection:
    """One adb server that is connected: messages in, messages out."""

    def __init__(self, wire: socket.socket, variables: Mapping[str, str]) -> None:
        self.wire = wire
        self._variables = variables
        self._sending = threading.Lock()
        self._shells: dict[int, _Shell] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = (command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._sending, contextlib.suppress(OSError):
            self.wire.sendall(struct.pack("<6I", *head) + data)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.wire.shutdown(socket.SHUT_RDWR)
        self.wire.close()

    def _serve(self) -> None:
        try:
            while head := self._exactly(24):
                command, first, second, length, _, _ = struct.unpack("<6I", head)
                self._obey(command, first, second, self._exactly(length))
        except OSError:
            pass
        for shell in list(self._shells.values()):
            shell.leave()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.wire.recv(size - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def _obey(self, command: int, theirs: int, ours: int, data: bytes) -> None:
        if command == _CNXN:
            self.send(_CNXN, _VERSION, _MOST_DATA, _BANNER)
        elif command == _OPEN:
            service, _, line = data.rstrip(b"\0").partition(b":")
            words = service.decode().split(",")
            if words[:2] == ["shell", "v2"] and "raw" in words:
                number = len(self._shells) + 1
                self._shells[number] = _Shell(self, number, theirs, line, self._variables)
            else:
                self.send(_CLSE, 0, theirs)
        elif ours in self._shells:
            shell = self._shells[ours]
            if command == _OKAY:
                shell.taken.set()
            elif command == _WRTE:
                shell.heard.put(data)
            elif command == _CLSE:
                shell.leave()


class _Shell:
    """One command: its three streams and its exit code, in packets of the shell protocol."""

    def __init__(
        self,
        connection: _Connection,
        number: int,
        theirs: int,
        line: bytes,
        variables: Mapping[str, str],
    ) -> None:
        self._connection, self._number, self._theirs = connection, number, theirs
        self.heard: queue.Queue[bytes | None] = queue.Queue()
        self.taken = threading.Event()
        self._gone = False
        self._telling = threading.Lock()
        self._child = subprocess.Popen(
            ["sh", "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(variables),
            cwd="/",
        )
        connection.send(_OKAY, number, theirs)
        for work in (self._feed, self._report):
            threading.Thread(target=work, daemon=True).start()

    def leave(self) -> None:
        """The other side has gone: nothing more is told, and the command's input ends."""
        self._gone = True
        self.taken.set()
        self.heard.put(None)

    def _feed(self) -> None:
        assert self._child.stdin is not None
        held = b""
        with contextlib.suppress(OSError), self._child.stdin as stream:
            while (data := self.heard.get()) is not None:
                held += data
                while len(held) >= 5 and len(held) >= 5 + (size := _length(held)):
                    kind, payload, held = held[0], held[5 : 5 + size], held[5 + size :]
                    if kind == _CLOSE_STDIN:
                        self._connection.send(_OKAY, self._number, self._theirs)
                        return
                    if kind == _STDIN:
                        stream.write(payload)
                        stream.flush()
                self._connection.send(_OKAY, self._number, self._theirs)

    def _report(self) -> None:
        assert self._child.stdout is not None and self._child.stderr is not None
        pipes = ((_STDOUT, self._child.stdout.fileno()), (_STDERR, self._child.stderr.fileno()))
        readers = [threading.Thread(target=self._pass_on, args=pipe, daemon=True) for pipe in pipes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self._child.stdout.close()
        self._child.stderr.close()
        code = self._child.wait()
        # As a shell tells a signal; adb has one byte for it.
        self._tell(_EXIT, bytes([code if code >= 0 else 128 - code]))
        self._connection.send(_CLSE, self._number, self._theirs)

    def _pass_on(self, kind: int, pipe: int) -> None:
        while data := os.read(pipe, _PIECE):
            self._tell(kind, data)

    def _tell(self, kind: int, data: bytes) -> None:
        with self._telling:
            if self._gone:
                return
            self.taken.clear()
            packet = bytes([kind]) + struct.pack("<I", len(data)) + data
            self._connection.send(_WRTE, self._number, self._theirs, packet)
            self.taken.wait()


def _length(packet: bytes) -> int:
    return int.from_bytes(packet[1:5], "little")


@dataclass(frozen=True, slots=True)
class Plugged:
    """A stand-in that this machine's adb is connected to."""

    device: Device
    adb: str

    def connect(self) -> None:
        """Connect adb to it, and wait until adb says that it is there; skips where it does not."""
        serial = self.device.address.removeprefix("adb:")
        said = ""
        for words in (
            ["disconnect", serial],
            ["connect", serial],
            ["-s", serial, "wait-for-device"],
        ):
            told = subprocess.run(
                [self.adb, *words], capture_output=True, text=True, check=False, timeout=60
            )
            said += told.stdout + told.stderr
        if "connected to" not in said or told.returncode:
            pytest.skip(f"adb does not connect here: {said.strip()}")


@contextlib.contextmanager
def android_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugged]:
    """A stand-in with `getprop`, connected to an adb server of the test's own: a developer's phones
    and keys are left alone. Skips without adb."""
    adb = shutil.which("adb")
    if adb is None:
        pytest.skip("needs Android's adb (Debian: adb)")
    programs = folder / "programs"
    programs.mkdir()
    rows = "".join(f"[{name}]: [{value}]\n" for name, value in PROPERTIES.items())
    (programs / "getprop").write_text(f"#!/bin/sh\ncat <<'END'\n{rows}END\n")
    (programs / "getprop").chmod(0o755)
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    device = Device({"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder / "home")})
    plugged = Plugged(device, adb)
    try:
        plugged.connect()
        yield plugged
    finally:
        subprocess.run([adb, "kill-server"], check=False, capture_output=True, timeout=60)
        device.close()
