"""What another machine tells of itself, read once: its files of /proc and /sys as a folder tree
here, which everything that takes a `root` reads as if it were the machine.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packager.cores import Cores, cores, parse_list
from packager.errors import unreachable
from packager.lab.transport import Transport, last_line, run
from packager.limits import DEVICE_WORD_CHARACTERS

_FILE = re.compile(r"(proc|sys)/[\w./:@+-]{1,400}", re.ASCII)
_COMMANDS = ("uname -m", "uname -sr", "getprop", "dumpsys battery", "dumpsys power")

# AOSP, PowerManagerInternal.java: the words of its states of wakefulness.
_SCREENS = {"Awake": "on", "Dreaming": "on", "Dozing": "off", "Asleep": "off"}

# One file or command after another, each behind a line with a word that nobody else knows. Groups
# of version 2 are walked from the own one upwards; globs that match nothing stay as they are and
# name no file.
_SCRIPT = """
f() {{ [ -r "$1" ] && [ -f "$1" ] && printf '\\n%s %s\\n' {word} "$1" && cat "$1"; }}
c() {{ command -v "$1" >/dev/null && printf '\\n%s %s\\n' {word} "$*" && "$@" </dev/null; }}
exec 2>/dev/null
cd / || exit
for i in proc/cpuinfo proc/meminfo proc/stat proc/device-tree/model proc/self/cgroup \\
  proc/self/mountinfo proc/self/status \\
  sys/devices/cpu_core/cpus sys/devices/cpu_atom/cpus sys/devices/cpu_lowpower/cpus \\
  sys/devices/system/cpu/cpu[0-9]*/cpu_capacity \\
  sys/devices/system/cpu/cpu[0-9]*/topology/core_cpus_list \\
  sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list \\
  sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq \\
  sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor \\
  sys/devices/system/cpu/cpu0/cache/index*/size \\
  sys/class/power_supply/*/type sys/class/power_supply/*/status \\
  sys/class/power_supply/*/capacity; do f "$i"; done
p=$(sed -n 's/^0:://p' proc/self/cgroup)
while :; do
  for i in cpu.max memory.max memory.current; do f "sys/fs/cgroup${{p%/}}/$i"; done
  [ -n "${{p%/}}" ] || break
  p=${{p%/*}}
done
{commands}
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A device as it was: `root` is the folder that plays its file system, `said` what commands
    printed, by their words."""

    root: Path
    said: dict[str, str]

    @property
    def architecture(self) -> str:
        """As `uname -m` says it."""
        return _word(self.said.get("uname -m", ""))

    @property
    def system(self) -> str:
        """Name and version of the kernel."""
        return _word(self.said.get("uname -sr", ""))

    @property
    def properties(self) -> dict[str, str]:
        """Android's properties; empty elsewhere."""
        rows = re.findall(r"^\[([^\]]+)\]: \[([^\]]*)\]\r?$", self.said.get("getprop", ""), re.M)
        return dict(rows)

    @property
    def phone(self) -> bool:
        """Whether it is an Android device, whichever way it was reached."""
        return "ro.build.version.sdk" in self.properties

    def names(self) -> tuple[str, ...]:
        """What an Android device calls itself: model and system on a chip."""
        pairs = (
            ("ro.product.manufacturer", "ro.product.model"),
            ("ro.soc.manufacturer", "ro.soc.model"),
        )
        rows = (" ".join(self.properties.get(name, "") for name in pair) for pair in pairs)
        return tuple(_word(row) for row in rows if row.strip())

    def cores(self) -> Cores:
        """Its processors, as far as a session of ours may use them."""
        allowed = parse_list(self._status("Cpus_allowed_list"))
        known = {
            int(folder.name[3:])
            for folder in (self.root / "sys/devices/system/cpu").glob("cpu[0-9]*")
            if folder.name[3:].isdecimal()
        }
        counted = {
            int(name)
            for name in re.findall(r"^cpu(\d{1,4}) ", self._text("proc/stat"), re.MULTILINE)
        }
        there = known | counted
        return cores(self.root, sorted(there & allowed) or sorted(there or allowed))

    def highest_mhz(self, cpu: int) -> float | None:
        """The highest clock of a processor; None where it is not told."""
        text = self._text(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq").strip()
        return int(text) / 1000 if text.isascii() and text.isdecimal() else None

    def governor(self) -> str | None:
        """What decides the clock of the cores; several, where they differ."""
        governors = {
            path.read_text("utf-8", "replace").strip()
            for path in self.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
        }
        return _word(", ".join(sorted(governors))) or None

    def battery(self) -> str | None:
        """`discharging, 80 %` where there is a battery that tells it."""
        for kind in sorted(self.root.glob("sys/class/power_supply/*/type")):
            if kind.read_text("utf-8", "replace").strip() == "Battery":
                words = [
                    (kind.parent / name).read_text("utf-8", "replace").strip()
                    for name in ("status", "capacity")
                    if (kind.parent / name).is_file()
                ]
                if words and words[-1].isdecimal():
                    words[-1] += " %"
                return _word(", ".join(words)).casefold() or None
        level = re.search(
            r"^\s*level: (\d{1,3})\b", self.said.get("dumpsys battery", ""), re.MULTILINE
        )
        powered = re.search(
            r"^\s*(AC|USB|Wireless) powered: true", self.said.get("dumpsys battery", ""), re.M
        )
        if level is None:
            return None
        return f"{'charging' if powered else 'discharging'}, {level[1]} %"

    def screen(self) -> str | None:
        """`on` or `off`, of an Android device that tells it."""
        state = re.search(
            r"^\s*mWakefulness=(\w{1,20})", self.said.get("dumpsys power", ""), re.MULTILINE
        )
        return _SCREENS.get(state[1]) if state else None

    def _status(self, key: str) -> str:
        row = re.search(rf"^{key}:\s*(.*)$", self._text("proc/self/status"), re.MULTILINE)
        return row[1].strip() if row else ""

    def _text(self, path: str) -> str:
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError:
            return ""


def take(transport: Transport, root: Path) -> Snapshot:
    """Read the machine into the empty folder `root`. Raises PackError (source) where it cannot be
    reached, or has no POSIX shell."""
    word = f"qwen-pack-{secrets.token_hex(8)}"
    commands = "\n".join(f"c {command}" for command in _COMMANDS)
    done = run(transport, _SCRIPT.format(word=word, commands=commands))
    said: dict[str, str] = {}
    for name, data in _parts(done.out, word.encode()):
        if name in _COMMANDS:
            said[name] = data.decode("utf-8", "replace")
        elif _FILE.fullmatch(name) and ".." not in PurePosixPath(name).parts:
            _keep(root / name, data)
    snapshot = Snapshot(root, said)
    if not snapshot.architecture:
        raise unreachable(
            f"The device does not say what it is: {last_line(done.said)}.",
            "It needs a POSIX shell, as every Linux and Android device has.",
        )
    return snapshot


def _word(text: str) -> str:
    """A name that a device gives, on one line of a manifest."""
    return " ".join(text[: 2 * DEVICE_WORD_CHARACTERS].split())[:DEVICE_WORD_CHARACTERS]


def _parts(out: bytes, word: bytes) -> list[tuple[str, bytes]]:
    """Name and content of every file or command in the output of the script."""
    rows = []
    for part in out.split(b"\n" + word + b" ")[1:]:
        name, _, data = part.partition(b"\n")
        rows.append((name.decode("utf-8", "replace"), data))
    return rows


def _keep(path: Path, data: bytes) -> None:
    """Write one file; what would stand where a folder is, or below a file, is passed over."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return
