"""Our own code in a private virtual environment on a device that has Python and an engine: for
packages that no agent runs (`--agent python`)."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from packager.errors import ExitCode, PackError, usage
from packager.escapes import sh
from packager.files import sha256
from packager.lab.link import waited_for
from packager.lab.push import Sent, push
from packager.lab.transport import Transport, last_line, run
from packager.lab.wheel import own_wheel

_INSTALL_S = 1200
"""Seconds for pip, which may download what is missing there."""
_NO_PYTHON, _OLD_PYTHON, _NO_VENV, _NO_PIP = 40, 41, 42, 43

# The environment sees the packages of the Python that it was made with, also where that is a
# virtual environment: the engines are there. Our own code comes first in any case. Dependencies
# that are missing are installed as that machine's pip is set to. Of our own code only what is
# imported is compiled: that is half of it. A new environment replaces those
# of other versions, but for one that a process works in: a measurement of another desk. Where no
# /proc tells of processes, all stay.
_SCRIPT = """cd {folder} || exit 1
[ -f venv/{ready} ] && exit 0
rm -rf venv
command -v {python} >/dev/null || exit 40
{python} -c 'import sys; sys.exit(sys.version_info < (3, 11))' || exit 41
{python} -m venv --system-site-packages venv >&2 || exit 42
{python} -c 'import sysconfig
print("import site; site.addsitedir(" + repr(sysconfig.get_path("purelib")) + ")")' \\
  > "$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/engines.pth"
pip="venv/bin/python -m pip --disable-pip-version-check --no-input -q install"
$pip --no-deps --no-compile --force-reinstall ./{wheel} >&2 && $pip ./{wheel} >&2 || exit 43
: > venv/{ready}
[ -e /proc/self/cwd ] || exit 0
mine=$(pwd -P)
used=$(for process in /proc/[0-9]*; do readlink "$process/cwd"; done 2>/dev/null)
for venv in ../????????????????????????/venv; do
  old=$(cd "$venv/.." 2>/dev/null && pwd -P) || continue
  [ "$old" != "$mine" ] && ls "$old"/qwen_pack-*.whl >/dev/null 2>&1 || continue
  case ${{old##*/}} in *[!0-9a-f]*) continue ;; esac
  case $used in *"$old"*) continue ;; esac
  rm -rf "$old"
done
exit 0
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """Our code on the device: the folder there, the digest of its wheel, and what starts it, as a
    child process here."""

    folder: str
    sha256: str
    argv: tuple[str, ...]


def install(
    transport: Transport, python: str, work: Path
) -> Generator[tuple[int, int], None, Installed]:
    """Push the wheel and set the environment up, where that has not been done; those of other
    versions go then, if /proc says that nobody uses them. Yields bytes done and in all.

    Raises PackError: exit code 2 where there is no Python that serves, or pip could not install
    what is missing; as `push` does beside.
    """
    wheel = own_wheel(work)
    digest = sha256(wheel)
    sent = Sent(wheel, wheel.name, wheel.stat().st_size, digest)
    folder = yield from push(transport, [sent])
    done = run(transport, script(folder, python, wheel.name), _INSTALL_S)
    if done.code:
        raise _refused(done.code, python, last_line(done.said))
    command = (
        f'cd {sh(folder)} && export PYTHONSAFEPATH=1 XDG_CACHE_HOME="$PWD/cache" && '
        "./venv/bin/python -P -m packager.cli.there"
    )
    return Installed(folder, digest, tuple(transport.argv(waited_for(command))))


def script(folder: str, python: str, wheel: str) -> str:
    """What sets the environment up in a folder there, in words of the POSIX shell."""
    ready = f"ready-{hashlib.sha256(python.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return _SCRIPT.format(folder=sh(folder), python=sh(python), wheel=sh(wheel), ready=ready)


def _refused(code: int, python: str, said: str) -> PackError:
    if code == _NO_PYTHON:
        return usage(
            f"The device has no {python}.",
            "Name its Python with --agent python:PATH, or install Python 3.11 or later there.",
        )
    if code == _OLD_PYTHON:
        return usage(
            f"{python} on the device is older than 3.11.",
            "Name another one with --agent python:PATH.",
        )
    if code == _NO_VENV:
        return usage(
            f"Python on the device makes no virtual environment: {said}.",
            "Debian and Raspberry Pi OS have it in the package python3-venv.",
        )
    if code == _NO_PIP:
        return usage(
            f"pip on the device could not install qwen-pack: {said}.",
            "Connect the device to a package index, or install there what is missing.",
        )
    return PackError(
        f"The device could not set Python up: {said}.", "Check its disk.", ExitCode.SOURCE
    )
