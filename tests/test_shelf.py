"""The shelf on the command line: what was built, and how a package is deleted; nothing else is."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode
from tests.support.make_package import FILES, write_package


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))


def test_it_lists_the_packages_of_a_folder_measured_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_package(tmp_path / "here" / "p")
    assert main(["shelf", str(tmp_path / "here")]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[1].split("\t") == [
        "tiny",
        "–",
        "openvino:int8",
        "–",
        "–",
        "–",
        str(package),
    ]
    assert main(["shelf", str(tmp_path / "here"), "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "qwen-pack/shelf/1"
    assert [(one["name"], one["package"], one["decode_tps"]) for one in found["packages"]] == [
        ("tiny", str(package), None)
    ]


def test_an_empty_shelf_is_said_and_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shelf", str(tmp_path)]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert out == "" and str(tmp_path) in err
    assert main(["shelf", str(tmp_path), "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["packages"] == []


def test_a_package_is_deleted_whole_and_nothing_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_package(tmp_path / "p")
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["shelf", "--remove", str(package), "--yes", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["removed"], found["freed_bytes"]) == (
        str(package),
        sum(len(data) for data in FILES.values()),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_package_that_one_stands_in_is_deleted_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, named in enumerate((".", "../p1", "../p2/model/..")):
        package = write_package(tmp_path / f"p{number}")
        monkeypatch.chdir(package)
        assert main(["shelf", "--remove", named, "--yes"]) == ExitCode.DONE, capsys.readouterr()
        monkeypatch.chdir(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_where_nobody_can_be_asked_nothing_is_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_package(tmp_path / "p")
    assert main(["shelf", "--remove", str(package)]) == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err
    assert (package / "manifest.json").is_file()


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", True), (b"\n", True), (b"y\n", False)])
def test_it_asks_first(answer: bytes, left: bool, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "packager.cli", "shelf", "--remove", str(package)]
    with subprocess.Popen(
        words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        os.write(ours, answer)
        out, err = child.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"cannot be undone" in err
    assert (child.returncode, package.exists(), bool(out)) == (
        ExitCode.INTERRUPTED if left else ExitCode.DONE,
        left,
        not left,
    )


def test_what_qwen_pack_did_not_make_is_never_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = write_package(tmp_path / "p")
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    (tmp_path / "link").symlink_to(package)
    for name, code in (
        ("empty", ExitCode.INPUT),
        ("photos", ExitCode.INPUT),
        ("link", ExitCode.USAGE),
        ("nowhere", ExitCode.INPUT),
    ):
        assert main(["shelf", "--remove", str(tmp_path / name), "--yes"]) == code, name
    (package / "notes.txt").write_text("mine")
    assert main(["shelf", "--remove", str(package), "--yes"]) == ExitCode.USAGE
    assert "notes.txt" in capsys.readouterr().err
    assert (package / "manifest.json").is_file() and (tmp_path / "photos" / "cat.png").is_file()
