"""Ways to another machine: each runs one command of a POSIX shell there, as a child process here.

`ssh://[user@]host[:port][/folder]` takes the user's own OpenSSH with its configuration, agent and
jump hosts; `adb:SERIAL[/folder]` an Android device; `local:[PREFIX]` this machine, where PREFIX is
put before the agent (an emulator). Other distributions may add more, see
packager.lab.transport_plugins.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from packager.errors import ExitCode, PackError, unreachable, usage
from packager.escapes import sh
from packager.lab.meant import did_you_mean_address
from packager.lab.transport_plugins import BUILT_IN, maker, schemes
from packager.limits import DEVICE_ANSWER_BYTES

COMMAND_S = 60
"""Seconds for a command that looks at the device, none of which computes anything."""
KNOWN = "ssh://[USER@]HOST[:PORT][/FOLDER], adb:SERIAL[/FOLDER] or local:[PREFIX]"

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:]+")
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]*")
_FOLDER = re.compile(r"/[\w./ +-]*", re.ASCII)
_SSH_FAILED = 255
_PIECE = 1 << 16
_GRACE_S = 5.0


class Transport(Protocol):
    """One machine that can be reached. Nothing here assumes Linux on the desk."""

    @property
    def kind(self) -> str:
        """`ssh`, `adb`, `local` or a plug-in's scheme, for the manifest, which names no host."""

    @property
    def folder(self) -> str:
        """Where files go there, as a word of the shell: it may hold `$HOME`."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before the agent: an emulator's."""

    @property
    def phone(self) -> bool:
        """Whether what is reached that way is a phone."""

    def argv(self, command: str) -> list[str]:
        """The child process that runs `command` there, standard streams passed on as bytes."""

    def failure(self, code: int, said: str) -> PackError | None:
        """The sentence where an exit code and standard error mean that the machine was not
        reached; None where the command itself ended so."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended there."""

    code: int
    out: bytes
    said: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode("utf-8", "replace")


def run(transport: Transport, command: str, seconds: float = COMMAND_S) -> Done:
    """Run a command to its end. Raises PackError (source) where the machine cannot be reached, or
    is silent or talks for too long."""
    child = subprocess.Popen(
        transport.argv(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    heard = [_Heard(child, child.stdout), _Heard(child, child.stderr)]
    until = time.monotonic() + seconds
    try:
        for stream in heard:
            stream.join(max(0.0, until - time.monotonic()))
        silent = any(stream.is_alive() for stream in heard)
        if not silent:
            child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        silent = True
    finally:
        child.kill()
        child.wait()
    if any(stream.endless for stream in heard):
        raise unreachable(
            f"The device prints more than {DEVICE_ANSWER_BYTES} bytes.",
            "Check what its shell prints when it starts.",
        )
    if silent:
        raise unreachable(
            f"The device did not answer within {seconds:.0f} seconds.",
            "Check that it is awake and connected.",
        )
    complaint = heard[1].data.decode("utf-8", "replace").strip()
    failed = transport.failure(child.returncode, complaint)
    if failed is not None:
        raise failed
    return Done(child.returncode, bytes(heard[0].data), complaint)


class _Heard(threading.Thread):
    """Reads what a child prints on one stream; ends a child that prints without end.

    A thread, as pipes cannot be waited for on every system.
    """

    def __init__(self, child: subprocess.Popen[bytes], stream: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        assert stream is not None
        self._child, self._stream = child, stream
        self.data = bytearray()
        self.endless = False
        self.start()

    def run(self) -> None:
        """Until the stream ends."""
        with self._stream:
            while piece := os.read(self._stream.fileno(), _PIECE):
                self.data += piece
                if len(self.data) > DEVICE_ANSWER_BYTES:
                    self.endless = True
                    self._child.kill()
                    return


def last_line(said: str) -> str:
    """The last line of standard error, as the end of a sentence."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it does not say why"


@dataclass(frozen=True, slots=True)
class Local:
    """This machine, by the same way as any other."""

    folder: str
    prefix: tuple[str, ...] = ()
    kind: str = "local"
    phone: bool = False

    def argv(self, command: str) -> list[str]:
        """See Transport."""
        return ["sh", "-c", command]

    def failure(self, code: int, said: str) -> PackError | None:
        """See Transport: this machine is always there."""
        return None


@dataclass(frozen=True, slots=True)
class Ssh:
    """A host, by the user's own OpenSSH. An unknown or changed host key is never accepted."""

    host: str
    folder: str
    user: str = ""
    port: int | None = None
    prefix: tuple[str, ...] = ()
    kind: str = "ssh"
    phone: bool = False

    def argv(self, command: str) -> list[str]:
        """See Transport."""
        options = ["-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", "ServerAliveInterval=15", "-o", "ConnectTimeout=20"]
        options += ["-p", str(self.port)] if self.port else []
        options += ["-l", self.user] if self.user else []
        return [_program("ssh", "OpenSSH's client"), *options, "--", self.host, command]

    def failure(self, code: int, said: str) -> PackError | None:
        """See Transport."""
        if code != _SSH_FAILED:
            return None
        words = f"{f'-p {self.port} ' if self.port else ''}{self.user + '@' if self.user else ''}"
        if "Host key verification failed" in said or "host key is known" in said:
            changed = "IDENTIFICATION HAS CHANGED" in said
            return PackError(
                f"The host key of {self.host} {'has changed' if changed else 'is not known'}.",
                "Ask its owner, then remove the old key with `ssh-keygen -R`."
                if changed
                else f"Look at it and accept it once with: ssh {words}{self.host}",
                ExitCode.SOURCE,
            )
        if "Permission denied" in said:
            return unreachable(
                f"{self.host} asks for a password.",
                f"Give it a key that needs no typing: ssh-copy-id {words}{self.host}",
            )
        return unreachable(
            f"{self.host} cannot be reached by ssh: {last_line(said)}.",
            f"Check that this works: ssh {words}{self.host} true",
        )


@dataclass(frozen=True, slots=True)
class Adb:
    """An Android device on this machine's adb. An empty serial number is the only device."""

    serial: str
    folder: str = "/data/local/tmp/qwen-pack"
    prefix: tuple[str, ...] = ()
    kind: str = "adb"
    phone: bool = True

    def argv(self, command: str) -> list[str]:
        """See Transport."""
        chosen = ["-s", self.serial] if self.serial else ["-d"]
        return [_adb(), *chosen, "shell", "-T", command]

    def failure(self, code: int, said: str) -> PackError | None:
        """See Transport. adb tells its own failures by a first word on standard error."""
        if code == 0 or not re.search(r"^(adb: |error: )", said, re.MULTILINE):
            return None
        if "unauthorized" in said:
            return unreachable(
                "The phone has not allowed this computer to debug it.",
                "Unlock it and accept the question on its screen.",
            )
        named = "" if self.serial else " One on the network is adb:HOST:PORT."
        return unreachable(
            f"The Android device cannot be reached: {last_line(said)}.",
            f"Check `adb devices`: the device needs USB debugging switched on.{named}",
        )


def parse(address: str) -> Transport:
    """The transport of an `--on` address. Raises PackError (usage)."""
    scheme, colon, rest = address.partition(":")
    if not colon or scheme not in BUILT_IN:
        return _of_plug_in(scheme if colon else "", address)
    if scheme == "local":
        return _local(rest)
    return _ssh(address) if scheme == "ssh" else _android(address, rest)


def _of_plug_in(scheme: str, address: str) -> Transport:
    """The transport that another distribution brings for a scheme. Raises PackError (usage)."""
    if scheme not in schemes():
        others = "".join(f", {name}:..." for name in schemes())
        raise usage(
            f"{address!r} names no device.{did_you_mean_address(address, parse)}",
            f"Give {KNOWN}{others}.",
        )
    transport: Transport = maker(scheme)(address)
    return transport


def _local(prefix: str) -> Local:
    try:
        words = tuple(shlex.split(prefix))
    except ValueError:
        raise usage(f"local:{prefix} has a quote that does not end.", f"Give {KNOWN}.") from None
    if words and not words[0].strip("/"):
        raise usage(f"local:{prefix} names no program.", "Give local: for this machine.")
    # The same folder as anywhere else, where a test or a container can move it.
    return Local(_home_folder(), words)


def _home_folder() -> str:
    return '"${XDG_CACHE_HOME:-$HOME/.cache}"/qwen-pack-device'


def _ssh(address: str) -> Ssh:
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname or "", parts.port, parts.username or ""
    except ValueError:
        host, port, user, parts = "", None, "", urlsplit("ssh:")
    # `hostname` is in lower case, and names in the user's ssh configuration are not.
    named = re.search(re.escape(host), parts.netloc, re.IGNORECASE) if host else None
    host = named[0] if named else ""
    if (
        not _HOST.fullmatch(host)
        or (user and not _WORD.fullmatch(user))
        or parts.password
        or parts.query
        or parts.fragment
    ):
        raise usage(
            f"{address!r} is not an address for ssh.{did_you_mean_address(address, parse)}",
            f"Give {KNOWN}.",
        )
    return Ssh(host, _folder(parts.path, _home_folder()), user, port)


def _android(address: str, rest: str) -> Adb:
    serial, slash, folder = rest.partition("/")
    # Of adb://SERIAL the serial number would be a folder on whatever device is plugged in.
    if folder.startswith("/") or (serial and not _SERIAL.fullmatch(serial)):
        raise usage(
            f"{address!r} is not an address for adb.{did_you_mean_address(address, parse)}",
            f"Give {KNOWN}.",
        )
    return Adb(serial, _folder(slash + folder, Adb("").folder))


def _folder(path: str, otherwise: str) -> str:
    """A folder that the address names, for the shell; `otherwise` where it names none."""
    if path in ("", "/"):
        return otherwise
    if not _FOLDER.fullmatch(path) or ".." in path.split("/"):
        raise usage(f"{path!r} is not a folder on the device.", f"Give {KNOWN}.")
    return str(sh(f"{path.rstrip('/')}/qwen-pack-device"))


def android_devices(known: Iterable[str] = ()) -> list[str]:
    """The address of each device that adb lists, but for those `known`; empty where there is no
    adb. One that is offline, or does not allow this computer yet, says so when it is asked."""
    try:
        listing = subprocess.run(
            [_adb(), "devices"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
    except (PackError, OSError, subprocess.TimeoutExpired):
        return []
    lines = listing.stdout.decode("utf-8", "replace").splitlines()
    # A serial number, a tab and a state; what else adb says has no tab.
    serials = (line.partition("\t")[0] for line in lines if "\t" in line)
    named = {address.split("/")[0] for address in known}
    addresses = (f"adb:{serial}" for serial in serials if _SERIAL.fullmatch(serial))
    return [address for address in addresses if address not in named]


def adb_runs() -> bool:
    """Whether adb's server answers on this machine. Asking adb for its devices starts one that
    stays, which only a command that is about them may do."""
    address = os.environ.get("ADB_SERVER_SOCKET", "")
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    if not address:
        port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=0.5).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _program(name: str, what: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise usage(f"{what} ({name}) is not installed here.", f"Install {name}.")
    return program


def _adb() -> str:
    """The user's adb: in PATH, in the Android SDK, or the one that adbutils brings."""
    homes = [os.environ.get(variable) for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    folders = [Path(home) / "platform-tools" for home in homes if home]
    # Looked up and not imported: its module of that name loads a library of images.
    spec = find_spec("adbutils")
    folders += [
        Path(place) / "binaries" for place in (spec and spec.submodule_search_locations) or ()
    ]
    for path in (None, *map(str, folders)):
        program = shutil.which("adb", path=path)
        if program is not None:
            return program
    raise usage(
        "Android's adb is not installed here.",
        "Install platform-tools of the Android SDK (Debian: adb), or: pip install "
        "'qwen-pack[phone]'.",
    )
