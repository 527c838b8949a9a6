"""Hostile archives leave nothing and end in one sentence; those of other tools are read."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.shipping.unpack import unpack
from tests.support.make_package import FILES, body, write_package
from tests.support.shipping_packages import ARCHIVES, exported, finish, refused, tree

pytestmark = pytest.mark.engine


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "tiny"
    folder.mkdir(parents=True)
    return write_package(folder)


# What a hostile archive may hold. Each row: how the members differ from an honest archive, and a
# word of the answer.

Members = list[tuple[tarfile.TarInfo, bytes]]


def row(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def honest(folder: Path) -> Members:
    names = [manifest.NAME, *FILES]
    return [row(f"tiny/{name}", (folder / name).read_bytes()) for name in names]


def packed(
    members: Iterable[tuple[tarfile.TarInfo, bytes]], out: Path, form: int = tarfile.GNU_FORMAT
) -> Path:
    raw = b"".join(
        info.tobuf(form) + data + bytes(-len(data) % 512) for info, data in members
    ) + bytes(1024)
    out.write_bytes(zstandard.compress(raw))
    return out


HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "a symbolic link": (
        lambda m: [m[0], row("tiny/model/model.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        "symbolic link",
    ),
    "a hard link": (
        lambda m: [m[0], row("tiny/model/model.bin", type=tarfile.LNKTYPE, linkname="../../x")],
        "hard link",
    ),
    "a device": (lambda m: [m[0], row("tiny/null", type=tarfile.CHRTYPE)], "device"),
    "a pipe": (lambda m: [m[0], row("tiny/pipe", type=tarfile.FIFOTYPE)], "pipe"),
    "a sparse file": (
        lambda m: [m[0], row("tiny/model/model.bin", type=tarfile.GNUTYPE_SPARSE)],
        "sparse",
    ),
    "an absolute path": (lambda m: [m[0], row("/tmp/evil", b"x")], "does not name"),
    "a parent path": (lambda m: [m[0], row("tiny/../../evil", b"x")], "does not name"),
    "a backslash": (lambda m: [m[0], row("tiny/..\\evil", b"x")], "does not name"),
    "another folder": (lambda m: [m[0], row("evil", b"x")], "does not name"),
    "a file twice": (lambda m: [*m, m[1]], "twice"),
    "a second manifest": (lambda m: [*m, m[0]], "twice"),
    "a file too many": (lambda m: [*m, row("tiny/model/extra", b"x")], "does not name"),
    "a file too few": (lambda m: m[:-1], "lacks"),
    "no manifest": (lambda m: m[1:], "manifest"),
    "nothing": (lambda m: [], "manifest"),
    "other bytes": (
        lambda m: [*m[:1], row(m[1][0].name, bytes(m[1][0].size)), *m[2:]],
        "not what the manifest says",
    ),
    "other sizes": (lambda m: [*m[:1], row(m[1][0].name, m[1][1] + b"x"), *m[2:]], "instead of"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_leaves_nothing_and_ends_in_one_sentence(
    package: Path, tmp_path: Path, what: str
) -> None:
    change, word = HOSTILE[what]
    archive = packed(change(honest(package)), tmp_path / "evil.tar.zst")
    refused(lambda: unpack(archive, tmp_path / "back"), ExitCode.INPUT, word)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar.zst", "made"]


def test_an_archive_of_another_tool_with_folders_and_long_headers_is_read(
    package: Path, tmp_path: Path
) -> None:
    members = [
        row("tiny", type=tarfile.DIRTYPE),
        *honest(package),
        row("tiny/model", type=tarfile.DIRTYPE),
    ][1:]
    for info, _ in members:
        info.pax_headers = {"comment": "x" * 300, "mtime": "1.5"}
    assert tree(
        finish(
            unpack(packed(members, tmp_path / "pax", tarfile.PAX_FORMAT), tmp_path / "back")
        ).path
    ) == tree(package)


def test_a_header_that_would_fill_the_memory_is_refused(package: Path, tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info, _ = row("x", type=kind)
        info.size = 1 << 40
        refused(
            lambda info=info: unpack(
                packed([(info, b"")], tmp_path / f"{info.type!r}"), tmp_path / "back"
            ),
            ExitCode.INPUT,
            "extended header",
        )


def test_a_manifest_of_files_that_are_one_on_some_systems_is_refused(
    package: Path, tmp_path: Path
) -> None:
    rows = body(package)
    rows["files"].append({**rows["files"][2], "path": "readme.MD"})
    text = manifest.json.dumps(manifest.seal(rows)).encode()
    members = [
        row("tiny/manifest.json", text),
        *honest(package)[1:],
        row("tiny/readme.MD", FILES["README.md"]),
    ]
    refused(
        lambda: unpack(packed(members, tmp_path / "evil"), tmp_path / "back"),
        ExitCode.INPUT,
        "same file on some systems",
    )


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_happens_to_an_archive_it_is_refused_or_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "tiny").mkdir()
    package = write_package(folder / "tiny")
    name = data.draw(st.sampled_from(ARCHIVES))
    archive = exported(package, name, folder / "a")
    raw = bytearray(archive.read_bytes())
    if name == "tar.zst" and data.draw(st.booleans()):
        inner = bytearray(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read())
        inner[data.draw(st.integers(0, len(inner) - 1))] = data.draw(st.integers(0, 255))
        raw = bytearray(zstandard.compress(bytes(inner)))
    elif data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(raw)
    try:
        back = finish(unpack(archive, folder / "back"))
    except PackError as error:
        assert error.exit_code == ExitCode.INPUT
        assert not (folder / "back").exists()
    else:
        # White space of the manifest alone is covered by no digest in it: its content is.
        assert back.manifest == manifest.read(package)
        one, other = tree(back.path), tree(package)
        assert {**one, manifest.NAME: b""} == {**other, manifest.NAME: b""}


ZIPS: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "a link": (lambda z: _zip_link(z), "link"),
    "a parent path": (lambda z: z.writestr("tiny/../../evil", b"x"), "does not name"),
    "a file twice": (lambda z: z.writestr("tiny/README.md", FILES["README.md"]), "twice"),
    "a bomb": (
        lambda z: z.writestr("tiny/bomb", bytes(1 << 24), zipfile.ZIP_DEFLATED),
        "does not name",
    ),
    "an odd compression": (lambda z: z.writestr("tiny/odd", b"x", zipfile.ZIP_LZMA), "compression"),
}


def _zip_link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("tiny/link")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize("what", ZIPS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_leaves_nothing_and_ends_in_one_sentence(
    package: Path, tmp_path: Path, what: str
) -> None:
    archive = exported(package, "zip", tmp_path / "evil.zip")
    change, word = ZIPS[what]
    with zipfile.ZipFile(archive, "a") as file:
        change(file)
    refused(lambda: unpack(archive, tmp_path / "back"), ExitCode.INPUT, word)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip", "made"]


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    refused(lambda: unpack(tmp_path / "text", tmp_path / "back"), ExitCode.INPUT, "neither")
    refused(lambda: unpack(tmp_path / "absent", tmp_path / "back"), ExitCode.USAGE, "no file")
    (tmp_path / "back").mkdir()
    refused(lambda: unpack(tmp_path / "text", tmp_path / "back"), ExitCode.USAGE, "already exists")
