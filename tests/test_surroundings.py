"""What a shell does to a program: signals, readers that go away, streams that were never open, odd
folders."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from packager.errors import ExitCode
from packager.package.verify import verify
from tests.support.building import program, words_of
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import write_package
from tests.support.tiers import thorough

COLD = [sys.executable, "-m", "packager.cli"]
"""For what looks for the jobs by their command line, or has no streams to hand down."""


def qwen_pack() -> list[str]:
    """The program, whose jobs are forked from the servers of the suite."""
    return [sys.executable, *words_of("packager.cli")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


def build(checkpoint: Path, out: Path) -> list[str]:
    return [
        "build",
        "--target",
        "cpu-gguf",
        "--recipe",
        "gguf:Q8_0",
        "--context",
        "256",
        "--weights",
        str(checkpoint),
        "--out",
        str(out),
    ]


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


def children_gone(pid: int) -> bool:
    """Whether no job that this process started stays alive; what was killed has a moment to
    die."""
    for _ in range(600):
        if not any(
            "packager.process" in (process.info["cmdline"] or [])
            and str(pid) in process.info["cmdline"]
            and process.info["status"] != psutil.STATUS_ZOMBIE
            for process in psutil.process_iter(["cmdline", "status"])
        ):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("module", ["packager.cli.program", "click", "packager.errors"])
def test_an_interruption_before_the_program_is_imported_ends_it_in_a_sentence(module: str) -> None:
    """Ctrl-C while that module is looked for, as in the first moments after the start."""
    code = (
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from packager.cli import main\n"
        "sys.exit(main(['models']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr, run.stdout) == (
        ExitCode.INTERRUPTED,
        "Error: Interrupted.\n",
        "",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is full")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("fit", "--target", "nowhere"), ExitCode.USAGE),
        (("fit", "--nothing"), ExitCode.USAGE),
        (
            ("fit", "--target", "laptop-cpu", "--parallel", "4096", "--model", "Qwen3-0.6B"),
            ExitCode.NOTHING_FITS,
        ),
        (("fit", "--target", "laptop-cpu"), ExitCode.DONE),
        (("models",), ExitCode.DONE),
    ],
)
def test_a_log_on_a_full_disk_changes_neither_the_data_nor_the_exit_code(
    words: tuple[str, ...], code: int
) -> None:
    line = shlex.join([*COLD, *words])
    full = shell(f"{line} 2>/dev/full")
    fine = program("packager.cli", words, dict(os.environ), Path.cwd())
    assert (full.returncode, full.stdout) == (code, fine.stdout) and fine.returncode == code


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, thorough(signal.SIGHUP)])
def test_termination_and_a_closed_terminal_are_interruptions(
    number: int, checkpoint: Path, tmp_path: Path, own_cache: Path
) -> None:
    # Tests that somebody runs in the background inherit that it is ignored.
    run = subprocess.Popen(
        [*COLD, *build(checkpoint, tmp_path / "p")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("[2/"):
            run.send_signal(number)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.INTERRUPTED, rest
    assert "same command again to continue" in rest
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert list((own_cache / "work").iterdir()) == []
    assert children_gone(run.pid)


@pytest.mark.engine
def test_a_hangup_that_the_caller_ignores_stays_ignored(checkpoint: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(
        ["nohup", *qwen_pack(), *build(checkpoint, tmp_path / "p")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("[2/"):
            run.send_signal(signal.SIGHUP)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.DONE, rest


@pytest.mark.engine
@pytest.mark.thorough(
    "test_a_reader_of_the_data_who_goes_away_is_no_error",
    "test_a_build_with_no_standard_stream_open_writes_a_whole_package",
)
def test_a_reader_of_the_narration_who_goes_away_does_not_stop_a_build(
    checkpoint: Path, tmp_path: Path
) -> None:
    run = shell(
        f"{shlex.join([*qwen_pack(), *build(checkpoint, tmp_path / 'p')])} 2>&1 | head -1; exit "
        f"${{PIPESTATUS[0]}}"
    )
    assert run.returncode == ExitCode.DONE, run.stderr
    assert run.stderr == ""
    assert verify(tmp_path / "p") == []


@pytest.mark.engine
def test_a_build_with_no_standard_stream_open_writes_a_whole_package(
    checkpoint: Path, tmp_path: Path
) -> None:
    run = shell(f"{shlex.join([*qwen_pack(), *build(checkpoint, tmp_path / 'p')])} <&- >&- 2>&-")
    assert run.returncode == ExitCode.DONE
    assert verify(tmp_path / "p") == []
    # Nor is one open for a job that is started from nothing, which finds its pipes under the numbers
    # of the streams.
    words = [*COLD, "run", str(tmp_path / "p"), "Hello", "--max-tokens", "2"]
    assert shell(f"{shlex.join(words)} <&- >&- 2>&-").returncode == ExitCode.DONE


@pytest.mark.engine
@pytest.mark.thorough("test_a_folder_of_any_name_is_built_and_its_package_is_whole")
def test_papers_that_other_systems_cannot_hold_do_not_spoil_the_package(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    for name in ("LICENSE", "License", "LICENSE\x1b"):
        (copy / name).write_text(name)
    run = shell(shlex.join([*qwen_pack(), *build(copy, tmp_path / "p")]))
    assert run.returncode == ExitCode.DONE, run.stderr
    assert verify(tmp_path / "p") == []
    assert (
        len(
            [path for path in (tmp_path / "p").iterdir() if path.name.upper().startswith("LICENSE")]
        )
        == 1
    )


@pytest.mark.engine
def test_two_builds_at_once_into_one_cache_and_one_folder_both_end_well(
    checkpoint: Path, tmp_path: Path
) -> None:
    words = [*qwen_pack(), *build(checkpoint, tmp_path / "p")]
    runs = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [ExitCode.DONE, ExitCode.DONE], said
    assert verify(tmp_path / "p") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "p"]


@pytest.mark.engine
def test_what_somebody_puts_into_the_folder_while_it_is_built_again_is_kept(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_package(tmp_path / "p")
    before = (tmp_path / "p" / "manifest.json").read_bytes()
    words = [*qwen_pack(), *build(checkpoint, tmp_path / "p")]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("[2/"):
            (tmp_path / "p" / "notes.txt").write_text("mine")
    assert run.wait() == ExitCode.USAGE
    assert (tmp_path / "p" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "p" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "p"]


def test_a_reader_of_the_data_who_goes_away_is_no_error() -> None:
    run = shell(f"(sleep 0.5; {shlex.join(COLD)} models --json) | true; exit ${{PIPESTATUS[0]}}")
    assert (run.returncode, run.stderr) == (ExitCode.DONE, "")


def test_a_file_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")
    Path(os.fsdecode(os.fsencode(package) + b"/\xff\x1b[31m")).write_text("x")
    for flags in ("", "--json"):
        run = shell(f"{shlex.join(COLD)} verify {package} {flags}")
        assert run.returncode == ExitCode.INPUT, run.stderr
        assert "Traceback" not in run.stderr
        assert "\x1b" not in run.stdout
        assert "\\udcff" in run.stdout
    assert json.loads(run.stdout)["findings"][0]["path"].endswith("[31m")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows hangs up no terminals")
def test_a_terminal_that_is_gone_takes_no_words_and_the_exit_code_is_that_of_an_interruption() -> (
    None
):
    """Whatever is written there from then on fails, and that is no bug."""
    import fcntl
    import termios

    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}/team/x:v1"
        terminal, own = os.openpty()

        def control() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            fcntl.ioctl(own, termios.TIOCSCTTY, 0)

        run = subprocess.Popen(
            [*COLD, "pull", place],
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
            preexec_fn=control,
        )
        os.close(own)
        connection, _ = silent.accept()
        with connection:
            os.close(terminal)
            assert run.wait(120) == ExitCode.INTERRUPTED


def test_an_interruption_after_the_last_line_of_a_command_is_no_traceback() -> None:
    """It comes while the handlers are set back: nothing is left to end, and the exit code is
    decided."""
    program = """
import signal, sys
from packager.cli import main
real, came = signal.signal, []
def late(number, handler):
    if handler is signal.SIG_DFL and not came:
        came.append(number)
        signal.raise_signal(signal.SIGTERM)
    return real(number, handler)
signal.signal = late
code = main(["targets", "--json"])
assert came
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
