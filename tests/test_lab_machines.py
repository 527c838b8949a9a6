"""Names for machines, what is kept on them, several at once, and a package that is built here and
measured there."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cli import app, main
from packager.cli.lab import everybody
from packager.errors import ExitCode, PackError
from packager.lab import machines
from packager.lab.stored import Stored, to_remove
from packager.lab.transport import android_devices, parse
from packager.package import manifest
from packager.package.verify import verify
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.lab import one_agent, ssh_host
from tests.support.make_checkpoint import write_tiny
from tests.support.trained_package import write_trained


@pytest.fixture(autouse=True)
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "settings" / "lab.toml"
    monkeypatch.setenv(machines.FILE, str(file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    return file


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_machine_gets_a_name_that_on_takes_and_loses_it_again(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "add", "pi5", "ssh://pi@pi5"]) == ExitCode.DONE
    assert main(["lab", "add", "emulated", "local:qemu -cpu 'a \"b\\'"]) == ExitCode.DONE
    assert main(["lab", "add", "pi5", "ssh://pi@pi5:2222"]) == ExitCode.DONE
    assert machines.machines() == {
        "pi5": "ssh://pi@pi5:2222",
        "emulated": "local:qemu -cpu 'a \"b\\'",
    }
    assert machines.address_of("pi5") == "ssh://pi@pi5:2222"
    assert machines.address_of("adb:") == "adb:"
    assert main(["lab", "remove", "emulated"]) == ExitCode.DONE
    assert names.read_text().endswith('[machines]\npi5 = "ssh://pi@pi5:2222"\n')
    capsys.readouterr()
    with pytest.raises(PackError, match=r"'p5' is neither an address .* Did you mean 'pi5'"):
        machines.address_of("p5")
    for words in (["add", "a b", "local:"], ["add", "x", "http://x"], ["remove", "p5"]):
        assert main(["lab", *words]) == ExitCode.USAGE


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_whatever_address_is_taken_reads_back_as_it_is(prefix: str) -> None:
    try:
        parse(f"local:{prefix}")
    except PackError:
        return
    machines.add("x", f"local:{prefix}")
    assert machines.machines() == {"x": f"local:{prefix}"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("machines = 3", "machines is not a table"),
        ("[machine]\na = 'local:'", "machine is not known. Did you mean"),
        ("[machines]\na = 3", "machines.a is not a name with an address"),
        ("[machines]\n'a b' = 'local:'", "machines.a b is not a name"),
        ("[machines]\na = 'ssh:'", "machines.a: 'ssh:' is not an address for ssh"),
        ("[machines\n", "cannot be read"),
    ],
)
def test_a_file_of_names_that_is_wrong_says_where(
    text: str, words: str, names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names.parent.mkdir()
    names.write_text(text)
    assert main(["lab", "list"]) == ExitCode.INPUT
    assert words in capsys.readouterr().err


def test_the_list_says_who_answers_and_why_another_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adb = tmp_path / "bin" / "adb"
    adb.parent.mkdir()
    adb.write_text(
        "#!/bin/sh\n"
        "case $* in devices) printf '* daemon started successfully\\nList of devices attached\\n"
        "R5CT\\tdevice\\nabc\\tunauthorized\\n\\n' ;;\n"
        "*abc*) echo 'error: device unauthorized.' >&2; exit 1 ;;\n"
        "*) echo 'error: device offline' >&2; exit 1 ;; esac\n"
    )
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}:{os.environ['PATH']}")
    assert android_devices() == ["adb:R5CT", "adb:abc"]
    assert android_devices(["adb:R5CT/data/local/tmp/x"]) == ["adb:abc"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{server.getsockname()[1]}")
        labels = [row.label for row in everybody(start_adb=False)]
        assert labels == ["adb:R5CT", "adb:abc"]
    assert everybody(start_adb=False) == []
    machines.add("here", "local:")
    machines.add("gone", "ssh://127.0.0.1:1")
    assert main(["lab", "list", "--json"]) == ExitCode.DONE
    rows = {row["address"]: row for row in printed(capsys)["machines"]}
    assert rows["local:"]["reached"] and rows["local:"]["memory_bytes"] > 0
    assert rows["local:"]["name"] == "here" and rows["local:"]["device"]
    assert not rows["ssh://127.0.0.1:1"]["reached"] and rows["ssh://127.0.0.1:1"]["error"]
    assert "device offline" in rows["adb:R5CT"]["error"]
    assert "has not allowed this computer" in rows["adb:abc"]["error"]
    assert main(["lab", "list"]) == ExitCode.DONE
    told = capsys.readouterr()
    assert "here\tlocal:" in told.out
    assert "adb:abc: Unlock it and accept the question" in told.err


def test_every_command_of_the_page_is_one_that_the_program_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as click reads it, and not run: names, values and targets."""
    monkeypatch.chdir(tmp_path)
    for name in ("PACKAGE", "CHECKPOINT"):
        Path(name).mkdir()
    page = (REPOSITORY / "docs" / "lab.md").read_text("utf-8")
    lines = re.findall(r"^    (qwen-pack .*)$|`(qwen-pack [^`]+ [^`]+)`", page, re.MULTILINE)
    assert len(lines) > 15
    for line in map("".join, lines):
        words = shlex.split(line, comments=True)[1:]
        context = click.Context(app)
        command: click.Command = app
        while isinstance(command, click.Group):
            _, following, words = command.resolve_command(context, words)
            assert following is not None, line
            command, context = following, click.Context(following, context)
        told = command.make_context(command.name, list(words), context).params
        for address in (*(told.get("machines") or ()), told.get("address")):
            assert not address or ":" not in address or parse(address), line
        if (chosen := told.get("target")) and not chosen.endswith(".toml"):
            registry.target(chosen)


def test_adb_is_the_users_own_then_that_of_the_sdk_then_the_one_that_pip_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As adbutils' wheel has it: the package is found and not imported.
    brought, sdk, own = (tmp_path / name for name in ("pip/adbutils/binaries", "sdk", "own"))
    for folder in (brought, sdk / "platform-tools", own):
        folder.mkdir(parents=True)
        (folder / "adb").write_text("#!/bin/sh\n")
        (folder / "adb").chmod(0o755)
    (brought.parent / "__init__.py").write_text("raise AssertionError")
    monkeypatch.delitem(sys.modules, "adbutils", raising=False)
    outside = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", outside)
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PackError, match="adb is not installed here"):
        parse("adb:x").argv("true")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "pip"), *outside])
    assert parse("adb:x").argv("true")[0] == str(brought / "adb")
    monkeypatch.setenv("ANDROID_HOME", str(sdk))
    assert parse("adb:x").argv("true")[0] == str(sdk / "platform-tools" / "adb")
    monkeypatch.setenv("PATH", str(own))
    assert parse("adb:x").argv("true")[0] == str(own / "adb")


def test_no_machine_at_all_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["lab", "list"]) == ExitCode.DONE
    assert "qwen-pack lab add pi5 ssh://pi@pi5" in capsys.readouterr().out


def test_cleaning_removes_what_was_not_used_for_longest_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "there" / "qwen-pack-device"
    folders = [home / (letter * 24) for letter in "abc"]
    for place, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(os.urandom(1 << 20))
        os.utime(folder, (1_000_000 + place, 1_000_000 + place))
    other = home / "mine"
    other.mkdir()
    assert main(["lab", "clean", "local:", "--keep", "2500K", "--json"]) == ExitCode.DONE
    told = printed(capsys)
    assert [row["name"] for row in told["removed"]] == ["a" * 24]
    assert told["freed_bytes"] >= 1 << 20 and told["left_bytes"] >= 2 << 20
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert main(["lab", "clean", "local:"]) == ExitCode.DONE
    assert [folder.exists() for folder in folders] == [False] * 3 and other.is_dir()
    other.rmdir()
    assert main(["lab", "clean", "local:"]) == ExitCode.DONE, "nothing left is no error"


@given(st.lists(st.integers(0, 100)), st.integers(0, 500))
def test_what_stays_is_the_latest_and_fits(sizes: list[int], keep: int) -> None:
    rows = [Stored(1000 - place, size, f"{place:024x}") for place, size in enumerate(sizes)]
    gone = to_remove(rows, keep)
    stays = rows[: len(rows) - len(gone)]
    assert gone == rows[len(stays) :]
    assert sum(row.bytes for row in stays) <= keep
    assert not gone or sum(row.bytes for row in [*stays, gone[0]]) > keep


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(one_agent(tmp_path_factory).path)


@pytest.mark.engine
def test_several_machines_are_measured_at_once_and_one_that_is_gone_is_a_row(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_trained(tmp_path / "p")
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        machines.add("board", f"{host.address}{tmp_path}/d")
        words = ["bench", str(package), "--agent", agent, "--save", "--on", "local:"]
        code = main([*words, "--on", "board", "--on", "ssh://127.0.0.1:1", "--json"])
    assert code == ExitCode.SOURCE
    told = capsys.readouterr()
    assert "local: Send to the device" in told.err and "local::" not in told.err
    here, board, gone = json.loads(told.out)["devices"]
    assert [row["machine"] for row in (here, board, gone)] == [
        "local:",
        "board",
        "ssh://127.0.0.1:1",
    ]
    assert here["measured"]["decode_tps"] > 0 and board["measured"]["decode_tps"] > 0
    assert board["measured"]["through"]["transport"] == "ssh"
    assert gone["measured"] is None and gone["error"]["exit_code"] == ExitCode.SOURCE
    assert (here["saved"], board["saved"], gone["saved"]) == (True, True, False)
    kept = manifest.read(package).contents.measurements
    assert [taken.through.transport for taken in kept if taken.through] == ["local", "ssh"]


@pytest.mark.engine
def test_a_package_is_built_here_and_measured_there_in_one_command(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "1")
    write_tiny(tmp_path / "tiny", layers=1, context=64)
    words = ["build", "--target", "laptop-cpu", "--weights", str(tmp_path / "tiny"), "--recipe"]
    words += ["gguf:Q8_0", "--context", "64", "--prompt", "16", "--out", str(tmp_path / "out")]
    assert main([*words, "--on", "nowhere"]) == ExitCode.USAGE
    assert main([*words, "--agent", agent]) == ExitCode.USAGE
    assert main([*words, "--on", "local:", "--agent", "aarch46"]) == ExitCode.USAGE
    other = [word.replace("gguf:Q8_0", "openvino:int8_asym") for word in words]
    assert main([*other, "--on", "local:", "--agent", agent]) == ExitCode.USAGE
    said = " ".join(capsys.readouterr().err.split())
    assert "no agent 'aarch46'" in said and "made for openvino" in said
    assert not (tmp_path / "out").exists(), "what is wrong is said before anything is built"
    capsys.readouterr()
    assert main([*words, "--on", "local:", "--agent", agent, "--json"]) == ExitCode.DONE
    found = manifest.read(tmp_path / "out").contents
    assert found.measured is not None and found.measured.through is None
    (there,) = found.measurements
    assert there.through is not None and there.through.transport == "local"
    assert printed(capsys)["manifest"]["measurements"], "the JSON has the figures of both"


@pytest.mark.engine
def test_a_machine_is_looked_at_before_the_build_and_one_that_goes_away_after_it_leaves_the_package(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "1")
    out, reached = tmp_path / "out", tmp_path / "reached"
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f"#!/bin/sh\n[ ! -e {reached} ] && : > {reached} && exit 0\n"
        "echo 'ssh: connect to host board: Connection refused' >&2; exit 255\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    write_tiny(tmp_path / "tiny", layers=1, context=64)
    words = ["build", "--target", "laptop-cpu", "--weights", str(tmp_path / "tiny"), "--recipe"]
    words += ["gguf:Q8_0", "--context", "64", "--prompt", "16", "--out", str(out)]
    reached.touch()
    assert main([*words, "--on", "ssh://board"]) == ExitCode.SOURCE
    assert not out.exists(), "a machine that does not answer is no reason to build for an hour"
    reached.unlink()
    capsys.readouterr()
    assert main([*words, "--on", "ssh://board", "--agent", agent]) == ExitCode.SOURCE
    said = capsys.readouterr().err
    assert "was not measured on ssh://board" in said
    assert f"qwen-pack bench {out} --on ssh://board" in said
    assert verify(out) == []


@pytest.mark.engine
def test_a_machine_without_a_thermometer_is_not_waited_for_and_nothing_is_sent_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("packager.lab.heat._ZONES", ":")
    package, out = write_trained(tmp_path / "p"), tmp_path / "out"
    build = ["build", "--target", "laptop-cpu", "--model", "Qwen3-0.6B", "--weights", "dummy"]
    build += ["--out", str(out), "--on", "local:", "--recipe", "gguf:Q8_0"]
    for words in (
        ["bench", str(package), "--on", "local:"],
        ["bench", str(package), "--on", "local:", "--agent", "python"],
        ["probe", "--on", "local:"],
        build,
        [*build, "--recipe", "gguf:Q4_K_M"],
    ):
        assert main([*words, "--cool", "40"]) == ExitCode.RESOURCE
        assert "reports no processor temperature" in capsys.readouterr().err
    # Of several engines each must be one that the agent can measure, whichever is kept.
    several = [*build[: build.index("--recipe")], "--runtime", "all"]
    assert main(several) == ExitCode.USAGE
    assert "The agent runs GGUF packages" in capsys.readouterr().err
    assert not (tmp_path / "there" / "qwen-pack-device").exists() and not out.exists()


def test_what_is_wrong_with_one_of_several_machines_is_said_before_any_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_trained(tmp_path / "p")
    machines.add("here", "local:")
    for other in ("nowhere", "ssh:", "here"):
        assert main(["bench", str(package), "--on", "local:", "--on", other]) == ExitCode.USAGE
    assert "named twice" in capsys.readouterr().err
    assert not (tmp_path / "there" / "qwen-pack-device").exists()
