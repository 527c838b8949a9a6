"""Every way in which a folder can differ from its manifest is found and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import strangers, verify, verify_names
from tests.support.make_package import FILES, write_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


def found(package: Path) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in verify(package)]


def test_an_untouched_package_has_no_findings(package: Path) -> None:
    heard: list[tuple[int, int]] = []
    assert verify(package, lambda done, total: heard.append((done, total))) == []
    size = sum(len(data) for data in FILES.values())
    assert heard[-1] == (size, size)


def test_one_flipped_bit_is_found(package: Path) -> None:
    path = package / "model/model.bin"
    data = bytearray(path.read_bytes())
    data[350] ^= 1
    path.write_bytes(data)
    assert found(package) == [("changed", "model/model.bin")]


def test_a_truncated_file_is_found(package: Path) -> None:
    os.truncate(package / "model/model.bin", 10)
    assert found(package) == [("changed", "model/model.bin")]


def test_a_missing_file_is_found(package: Path) -> None:
    (package / "README.md").unlink()
    assert found(package) == [("missing", "README.md")]


def test_a_renamed_file_is_one_finding(package: Path) -> None:
    (package / "model/model.bin").rename(package / "model/other.bin")
    findings = verify(package)
    assert [(finding.kind, finding.path, finding.message) for finding in findings] == [
        ("renamed", "model/model.bin", "is now called model/other.bin")
    ]


@pytest.mark.parametrize("path", ["extra.txt", "model/extra.bin", ".hidden", ".git/config"])
def test_an_additional_file_is_found(package: Path, path: str) -> None:
    (package / path).parent.mkdir(exist_ok=True)
    (package / path).write_text("x")
    assert ("additional", path) in found(package)


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        "model/Thumbs.db",
        "Desktop.ini",
        "model/._model.bin",
        "._manifest.json",
        "Icon\r",
        "model/.localized",
    ],
)
def test_what_a_file_manager_leaves_is_a_finding_and_no_obstacle(package: Path, path: str) -> None:
    (package / path).write_bytes(b"\0")
    (finding,) = verify(package)
    assert (finding.kind, finding.path, finding.harmless) == ("additional", path, True)
    assert strangers(package) == []
    (package / "model" / "extra.bin").write_text("x")
    assert [one.harmless for one in verify(package)].count(False) == 1
    assert strangers(package) == ["model/extra.bin"]


def test_an_additional_empty_folder_is_found(package: Path) -> None:
    (package / "empty").mkdir()
    assert found(package) == [("additional", "empty")]


def test_a_folder_in_the_place_of_a_file_is_named_as_one(package: Path) -> None:
    (package / "model" / "model.bin").unlink()
    (package / "model" / "model.bin").mkdir()
    assert found(package) == [("special", "model/model.bin")]


def test_a_link_is_found_even_when_its_bytes_are_right(package: Path, tmp_path: Path) -> None:
    (package / "README.md").rename(tmp_path / "README.md")
    (package / "README.md").symlink_to(tmp_path / "README.md")
    assert found(package) == [("link", "README.md")]


def test_a_linked_folder_is_found_and_not_followed(package: Path, tmp_path: Path) -> None:
    (package / "model").rename(tmp_path / "model")
    (package / "model").symlink_to(tmp_path / "model")
    assert ("link", "model") in found(package)
    assert ("missing", "model/model.bin") in found(package)


def test_a_pipe_is_found_and_not_opened(package: Path) -> None:
    (package / "README.md").unlink()
    os.mkfifo(package / "README.md")
    assert found(package) == [("special", "README.md")]


def test_a_file_that_becomes_a_link_while_it_is_checked_is_not_followed(
    package: Path, tmp_path: Path
) -> None:
    (package / "chat_template.jinja").rename(tmp_path / "outside")

    def replace_by_link(done: int, total: int) -> None:
        if not (package / "chat_template.jinja").is_symlink():
            (package / "chat_template.jinja").unlink()
            (package / "chat_template.jinja").symlink_to(tmp_path / "outside")

    (package / "chat_template.jinja").write_bytes((tmp_path / "outside").read_bytes())
    with pytest.raises(OSError):
        verify(package, replace_by_link)


def test_names_alone_are_checked_without_reading_a_file(package: Path) -> None:
    (package / "model/model.bin").write_bytes(b"x" * 700)
    assert verify_names(package) == []


def test_the_command_exits_with_6_and_names_the_file(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(package)]) == ExitCode.DONE
    assert "all as the manifest says" in capsys.readouterr().out
    (package / "README.md").unlink()
    assert main(["verify", str(package)]) == ExitCode.INPUT
    assert "missing: README.md" in capsys.readouterr().out
