"""Which machine an address means, and what is said where it cannot be reached."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.cli.reach import refuse_runtime
from packager.errors import ExitCode, PackError
from packager.lab.machines import FILE, address_of
from packager.lab.transport import Adb, Local, Ssh, parse, run
from packager.limits import DEVICE_ANSWER_BYTES
from packager.package import manifest
from tests.support.lab import Host, ssh_host
from tests.support.make_package import body, write_package

CACHE = '"${XDG_CACHE_HOME:-$HOME/.cache}"/qwen-pack-device'


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("ssh://pi5", Ssh("pi5", CACHE)),
        ("ssh://pi@Pi5.local:2222", Ssh("Pi5.local", CACHE, "pi", 2222)),
        ("ssh://[::1]/mnt/my disk", Ssh("::1", "'/mnt/my disk/qwen-pack-device'")),
        ("ssh://pi5/", Ssh("pi5", CACHE)),
        ("adb:0123ABC", Adb("0123ABC")),
        ("adb:", Adb("")),
        (
            "adb:192.168.0.7:5555/data/local/tmp/x",
            Adb("192.168.0.7:5555", "/data/local/tmp/x/qwen-pack-device"),
        ),
        ("local:", Local(CACHE)),
        (
            "local:qemu-aarch64-static -cpu 'a b'",
            Local(CACHE, ("qemu-aarch64-static", "-cpu", "a b")),
        ),
    ],
)
def test_an_address_names_one_machine_and_a_folder_there(address: str, means: object) -> None:
    assert parse(address) == means


@pytest.mark.parametrize(
    "address",
    [
        "pi5",
        "",
        "http://pi5",
        "ssh:",
        "ssh://",
        "ssh://-oProxyCommand=reboot",
        "ssh://-x@pi5",
        "ssh://pi:secret@pi5",
        "ssh://pi5:port",
        "ssh://pi5/../etc",
        "ssh://pi5/a$(reboot)",
        "ssh://pi5/a?b",
        "ssh://pi 5",
        "adb:-s",
        "adb:a b",
        "adb:a;b",
        "adb://0123ABC",
        "local:'",
    ],
)
def test_what_is_no_address_is_refused_and_never_reaches_a_shell(address: str) -> None:
    with pytest.raises(PackError) as caught:
        parse(address)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "ssh://" in caught.value.hint


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("local", "local:"),
        ("adb", "adb:"),
        ("ssh", "ssh://HOST"),
        ("ssh://", "ssh://HOST"),
        ("pi5", "ssh://pi5"),
        ("pi@192.168.0.7", "ssh://pi@192.168.0.7"),
        ("pi@pi5:/mnt/ssd", "ssh://pi@pi5/mnt/ssd"),
        ("pi5:2222", "ssh://pi5:2222"),
        ("ssh:pi5", "ssh://pi5"),
        ("SSH://pi5", "ssh://pi5"),
        ("http://pi5", "ssh://pi5"),
        ("adb://0123ABC", "adb:0123ABC"),
    ],
)
def test_what_is_nearly_an_address_is_told_the_address_that_it_nearly_is(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "lab.toml"))
    with pytest.raises(PackError, match=f" Did you mean '{re.escape(meant)}'") as caught:
        parse(address_of(written))
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "written", ["ssh:-oProxyCommand=x", "-x@pi5", "pi@pi5:99999", "pi5:/$(id)", "http://pi5/.."]
)
def test_nothing_is_proposed_that_would_be_refused(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "lab.toml"))
    with pytest.raises(PackError) as caught:
        parse(address_of(written))
    assert "Did you mean" not in caught.value.message


@given(st.text(max_size=40))
def test_no_text_gives_a_program_a_word_that_begins_with_a_dash(text: str) -> None:
    for scheme in ("ssh://", "adb:"):
        try:
            found = parse(scheme + text)
        except PackError:
            continue
        given_word = found.host if isinstance(found, Ssh) else getattr(found, "serial", "")
        assert not given_word.startswith("-")


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        yield host


def test_a_command_runs_on_a_known_host_with_its_bytes_and_its_exit_code(trusting: Host) -> None:
    done = run(parse(trusting.address), r"printf 'a\000b'; echo why >&2; exit 3")
    assert (done.code, done.out, done.said) == (3, b"a\0b", "why")


def test_an_unknown_host_key_is_never_accepted_and_the_way_to_accept_it_is_told(
    trusting: Host,
) -> None:
    trusting.known_hosts.write_text("")
    with pytest.raises(PackError, match=r"host key of 127\.0\.0\.1 is not known") as caught:
        run(parse(trusting.address), "true")
    assert caught.value.exit_code == ExitCode.SOURCE
    assert f"ssh -p {trusting.port} 127.0.0.1" in caught.value.hint
    assert trusting.known_hosts.read_text() == ""


def test_another_key_than_the_known_one_is_refused(trusting: Host, tmp_path: Path) -> None:
    other = (tmp_path / "client.pub").read_text().split()[:2]
    trusting.known_hosts.write_text(f"[127.0.0.1]:{trusting.port} {' '.join(other)}\n")
    with pytest.raises(PackError, match=r"host key of 127\.0\.0\.1 has changed"):
        run(parse(trusting.address), "true")


def test_a_host_that_wants_a_password_is_not_asked_and_one_that_is_silent_not_waited_for(
    trusting: Host,
    tmp_path: Path,
) -> None:
    (tmp_path / "allowed").write_text("")
    with pytest.raises(PackError, match="asks for a password"):
        run(parse(trusting.address), "true")
    with pytest.raises(PackError, match=r"cannot be reached by ssh: .*refused") as caught:
        run(parse("ssh://127.0.0.1:1"), "true")
    assert caught.value.exit_code == ExitCode.SOURCE


def test_a_device_that_does_not_answer_in_time_is_given_up() -> None:
    with pytest.raises(PackError, match="did not answer within 0 seconds"):
        run(Local("/nowhere"), "sleep 60", 0.2)


def test_a_device_that_prints_without_end_is_given_up_before_it_fills_the_memory() -> None:
    for stream in ("", " >&2"):
        with pytest.raises(
            PackError, match=f"prints more than {DEVICE_ANSWER_BYTES} bytes"
        ) as caught:
            run(Local("/nowhere"), f"exec yes{stream}")
        assert caught.value.exit_code == ExitCode.SOURCE


@pytest.mark.skipif(shutil.which("adb") is None, reason="needs Android's adb")
def test_a_phone_that_is_not_there_is_told_in_adbs_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A server of the test's own: a developer's phones are left alone.
    monkeypatch.delenv("ADB_SERVER_SOCKET")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "15037")
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        with pytest.raises(
            PackError, match=r"Android device cannot be reached: .*not found"
        ) as caught:
            run(parse("adb:NOSUCH"), "true")
        assert caught.value.exit_code == ExitCode.SOURCE
    finally:
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "pi5"], "'pi5' is neither an address nor the name of a machine"),
        (["--on", "local:qemu-aarch64-static"], "Name the agent: --agent"),
        (
            ["--on", "local:", "--agent", "aarch46"],
            "There is no agent 'aarch46'. Did you mean 'aarch64'",
        ),
        (["--on", "local:", "--agent", "/no/such"], "There is no agent '/no/such'"),
        (["--agent", "aarch64"], "only with --on"),
        (["--quality", "."], "--quality works only with --on"),
    ],
)
def test_bench_says_what_is_wrong_with_the_words_that_name_a_machine(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path / "p")
    changed = {**body(tmp_path / "p"), "runtime": {"name": "llama.cpp", "version": "1"}}
    manifest.write(tmp_path / "p", changed)
    assert main(["bench", str(tmp_path / "p"), *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_package_of_another_engine_is_told_where_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path / "p")
    assert main(["bench", str(tmp_path / "p"), "--on", "local:"]) == ExitCode.USAGE
    assert "on the device: --agent python" in capsys.readouterr().err
    with pytest.raises(PackError, match="this one makes vectors") as caught:
        refuse_runtime("llama.cpp", None, "embed")
    assert caught.value.exit_code == ExitCode.USAGE
    refuse_runtime("llama.cpp", "python:/opt/python", "embed")
    makes = {"runtime": {"name": "llama.cpp"}, "retrieval": {"task": "embed"}}
    manifest.write(tmp_path / "p", {**body(tmp_path / "p"), **makes})
    words = ["bench", str(tmp_path / "p"), "--on", "local:", "--on", "ssh://nowhere"]
    # Once, and not as the reason of each machine.
    assert main(words) == ExitCode.USAGE
    assert capsys.readouterr().err.count("this one makes vectors") == 1
