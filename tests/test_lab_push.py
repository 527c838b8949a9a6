"""Files reach a device whole or not at all, and only those that it does not have."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.lab.push import Sent, push
from packager.lab.transport import Local, Transport, parse
from tests.conftest import REPOSITORY
from tests.support.lab import here, ssh_host
from tests.support.tiers import thorough

pytestmark = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")


def sent(path: Path, data: bytes) -> Sent:
    path.write_bytes(data)
    return Sent(path, path.name, len(data), sha256(path))


def pushed(transport: Transport, files: list[Sent]) -> tuple[Path, list[tuple[int, int]]]:
    work, steps = push(transport, files), []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as stop:
            return Path(stop.value), steps


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_every_file_stands_there_under_its_name_and_a_second_push_sends_nothing(
    tmp_path: Path,
) -> None:
    files = [
        sent(tmp_path / name, noise(size)) for name, size in (("a b'c.gguf", 700_000), ("e", 0))
    ]
    # Blanks and quotes in names of files and folders are letters as any other.
    device = here(tmp_path / "the device's")
    folder, steps = pushed(device, files)
    assert [(folder / one.name).read_bytes() for one in files] == [
        one.path.read_bytes() for one in files
    ]
    assert steps[-1] == (700_000, 700_000)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again, steps = pushed(device, files)
    assert again == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(steps) == len(files)


def test_other_bytes_under_the_same_name_are_another_folder(tmp_path: Path) -> None:
    first, _ = pushed(here(tmp_path / "d"), [sent(tmp_path / "m", b"one")])
    second, _ = pushed(here(tmp_path / "d"), [sent(tmp_path / "m", b"two")])
    assert first != second
    assert (first / "m").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("left", "first_step"),
    [
        pytest.param(lambda data: data[:300_000], 300_000 + (1 << 18), id="a beginning is resumed"),
        pytest.param(lambda data: data, 700_000, id="a whole part only gets its name"),
        pytest.param(lambda data: b"x" * 300_000, 1 << 18, id="something else is sent anew"),
        pytest.param(lambda data: data + b"x", 1 << 18, id="what is too long is sent anew"),
    ],
)
def test_what_a_cut_push_left_is_used_where_it_is_right(
    tmp_path: Path, left: Callable[[bytes], bytes], first_step: int
) -> None:
    data = noise(700_000)
    file = sent(tmp_path / "model", data)
    folder, _ = pushed(here(tmp_path / "d"), [file])
    (folder / "model").unlink()
    (folder / "model.part").write_bytes(left(data))
    folder, steps = pushed(here(tmp_path / "d"), [file])
    assert [path.name for path in folder.iterdir()] == ["model"]
    assert (folder / "model").read_bytes() == data
    assert first_step in [done for done, _ in steps]


CHILD = """
import os, signal, sys
from pathlib import Path
from packager.files import sha256
from packager.lab.push import Sent, push
from packager.lab.transport import Local
import shlex
path, last = Path(sys.argv[1]), int(sys.argv[4])
print("ready", flush=True)
files = [Sent(path, path.name, path.stat().st_size, sys.argv[3])]
for step, _ in enumerate(push(Local(shlex.quote(sys.argv[2])), files)):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [6, thorough(17)])
def test_a_push_that_is_killed_anywhere_leaves_no_wrong_file_and_the_next_one_ends_it(
    kills: int, tmp_path: Path
) -> None:
    data = noise(12_000_000)
    file = sent(tmp_path / "model", data)

    def started(place: str = "d", last: int = -1) -> subprocess.Popen[bytes]:
        words = [str(file.path), str(tmp_path / place), file.sha256, str(last)]
        command = [sys.executable, "-c", CHILD, *words]
        child = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child

    began = time.monotonic()
    with started() as child:
        assert child.wait() == 0
    whole_s = time.monotonic() - began
    shutil.rmtree(tmp_path / "d")
    chance = random.Random(4)
    # Anywhere, however fast this machine is at the moment.
    for _ in range(kills):
        with started() as child:
            time.sleep(chance.random() * whole_s)
            child.kill()
        for path in (tmp_path / "d").glob("*/model"):
            assert path.read_bytes() == data
            path.unlink()
    # And in the middle: after so many chunks of the 46.
    for last in (0, 20, 40):
        with started(f"cut-{last}", last) as child:
            assert child.wait() == -signal.SIGKILL
        assert list((tmp_path / f"cut-{last}").glob("*/model.part"))
        assert not list((tmp_path / f"cut-{last}").glob("*/model"))
    for place in ("d", "cut-0", "cut-20", "cut-40"):
        folder, _ = pushed(here(tmp_path / place), [file])
        assert (folder / "model").read_bytes() == data
    assert file.path.read_bytes() == data


def test_a_device_without_room_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin" / "df"
    df.write_text("#!/bin/sh\necho Filesystem\necho '/dev/mmc blk 100 50 1000 99% /data'\n")
    df.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(PackError, match=r"The device has 1\.02 MB free") as caught:
        pushed(here(tmp_path / "d"), [sent(tmp_path / "model", noise(700_000))])
    assert caught.value.exit_code == ExitCode.RESOURCE
    assert [list(folder.iterdir()) for folder in (tmp_path / "d").iterdir()] == [[]]


def test_a_folder_that_cannot_be_made_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PackError, match="does not let us make a folder") as caught:
        pushed(here(tmp_path / "file" / "d"), [sent(tmp_path / "model", b"x")])
    assert caught.value.exit_code == ExitCode.SOURCE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_in_the_middle_is_a_sentence_and_nothing_gets_a_name(
    tmp_path: Path,
) -> None:
    class Full(Local):
        def argv(self, command: str) -> list[str]:
            return ["sh", "-c", command.replace("cat >>", "cat > /dev/full && : >>")]

    with pytest.raises(PackError, match="The device's disk is full") as caught:
        pushed(Full(str(tmp_path / "d")), [sent(tmp_path / "model", noise(700_000))])
    assert caught.value.exit_code == ExitCode.RESOURCE
    assert not list((tmp_path / "d").glob("*/model"))


def test_a_link_that_changes_bytes_is_noticed_and_nothing_gets_a_name(tmp_path: Path) -> None:
    class Broken(Local):
        def argv(self, command: str) -> list[str]:
            return ["sh", "-c", command.replace("cat >>", "tr a b >>")]

    with pytest.raises(PackError, match="arrived on the device as something else") as caught:
        pushed(Broken(str(tmp_path / "d")), [sent(tmp_path / "model", b"aaa" * 1000)])
    assert caught.value.exit_code == ExitCode.INPUT
    assert not list((tmp_path / "d").glob("*/*"))


@pytest.mark.slow
def test_a_push_over_ssh_that_loses_its_connection_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(12_000_000)
    file = sent(tmp_path / "model", data)
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        device = parse(f"{host.address}{tmp_path}/device")
        work = push(device, [file])
        next(step for step in work if step[0] > 4_000_000)
        work.close()  # ends the ssh client in mid-file
        (part,) = (tmp_path / "device").glob("*/*/model.part")
        assert not list((tmp_path / "device").glob("*/*/model"))
        folder, steps = pushed(device, [file])
    assert (folder / "model").read_bytes() == data
    assert not part.exists()
    assert steps[0][0] > 1 << 18, "it began again at the beginning"
