"""Export and unpack: the same bytes everywhere, lossless, and nothing dangerous gets through."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.catalog.licences import known, refusal, spdx
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.package import manifest
from packager.shipping import pieces
from packager.shipping.export import FORMATS, export
from packager.shipping.folder import join
from packager.shipping.unpack import unpack
from tests.support.make_package import FILES, body, write_package

pytestmark = pytest.mark.engine

AGREED = {"allow_dummy": True, "accepted": ("unstated",)}
ARCHIVES = ("tar.zst", "zip")
ANY_ENGINE = [row.name for row in FORMATS.values() if not row.runtimes]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "tiny"
    folder.mkdir(parents=True)
    return write_package(folder)


def finish(work: Any) -> Any:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def exported(package: Path, name: str, out: Path, **more: Any) -> Path:
    return finish(export(package, name, out, **{**AGREED, **more})).path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(work: Callable[[], Any], code: ExitCode, *words: str) -> None:
    with pytest.raises(PackError) as caught:
        finish(work())
    assert caught.value.exit_code == code, str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_comes_back_as_the_package_that_went_in(
    package: Path, tmp_path: Path, name: str
) -> None:
    archive = exported(package, name, tmp_path / f"out.{name}")
    back = finish(unpack(archive, tmp_path / "back"))
    assert tree(back.path) == tree(package)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_the_same_bytes_at_another_time_place_mask_zone_and_language(
    package: Path, tmp_path: Path, name: str
) -> None:
    one = exported(package, name, tmp_path / "one")
    elsewhere = tmp_path / "else where" / "other"
    shutil.copytree(package, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (time.time() - 86_400, time.time() - 86_400))
        path.chmod(0o700)
    code = (
        "import os, sys; os.umask(0o077); from pathlib import Path; from packager.shipping.export "
        "import export; "
        f"list(export(Path({str(elsewhere)!r}), {name!r}, Path({str(tmp_path / 'two')!r}), "
        "allow_dummy=True, accepted=('unstated',)))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    )
    assert sha256(one) == sha256(tmp_path / "two")


@pytest.mark.skipif(
    not shutil.which("zstd") or not shutil.which("unzip"), reason="needs tar, zstd and unzip"
)
def test_other_peoples_tools_open_the_archives(package: Path, tmp_path: Path) -> None:
    subprocess.run(
        [
            "tar",
            "--zstd",
            "-xf",
            exported(package, "tar.zst", tmp_path / "a.tar.zst"),
            "-C",
            tmp_path,
        ],
        check=True,
    )
    assert tree(tmp_path / "tiny") == tree(package)
    subprocess.run(
        ["unzip", "-q", exported(package, "zip", tmp_path / "a.zip"), "-d", tmp_path / "zip"],
        check=True,
    )
    assert tree(tmp_path / "zip" / "tiny") == tree(package)


@pytest.mark.parametrize("name", ["dir", *ARCHIVES])
def test_files_are_cut_into_pieces_and_joined_again(tmp_path: Path, name: str) -> None:
    package = big_package(tmp_path / "tiny")
    first = exported(package, name, tmp_path / "out", limit=1 << 16)
    sizes = [
        path.stat().st_size
        for path in (first.rglob("*") if first.is_dir() else tmp_path.glob("out.*"))
        if path.is_file()
    ]
    assert len(sizes) > 3 and max(sizes) <= 1 << 16
    back = finish(
        join(first, tmp_path / "back") if name == "dir" else unpack(first, tmp_path / "back")
    )
    assert tree(back.path) == tree(package)


def big_package(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_package(folder)
    (folder / "model/model.bin").write_bytes(os.urandom(200_001))
    rows = body(folder)
    rows["files"][0].update(size=200_001)
    manifest.write(folder, rows)
    return folder


@pytest.mark.parametrize("name", ["dir", *ARCHIVES])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_piece_that_is_missing_or_changed_is_found(
    tmp_path: Path, name: str, damage: str
) -> None:
    package = big_package(tmp_path / "tiny")
    first = exported(package, name, tmp_path / "out", limit=1 << 16)
    second = first / "model/model.bin.002" if name == "dir" else tmp_path / "out.002"
    if damage == "missing":
        second.unlink()
    else:
        second.write_bytes(bytes(second.stat().st_size))
    refused(
        lambda: (
            join(first, tmp_path / "back") if name == "dir" else unpack(first, tmp_path / "back")
        ),
        ExitCode.INPUT,
    )
    assert not (tmp_path / "back").exists()


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=400),
    limit=st.integers(1, 64),
    at=st.integers(0, 500),
    count=st.integers(0, 500),
)
def test_pieces_read_like_the_file_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, limit: int, at: int, count: int
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    parts = [folder / f"f.{number:03d}" for number in range(-(-len(data) // limit))]
    for number, part in enumerate(parts):
        part.write_bytes(data[number * limit : (number + 1) * limit])
    with pieces.joined(parts) as file:
        file.seek(at)
        assert file.read(count) == data[at : at + count]


def test_a_package_that_is_not_what_its_manifest_says_is_not_exported(
    package: Path, tmp_path: Path
) -> None:
    (package / "model/model.bin").write_bytes(b"WEIGHTS" * 100)
    for name in ANY_ENGINE:
        refused(
            lambda name=name: export(package, name, tmp_path / "out", **AGREED),
            ExitCode.INPUT,
            "model/model.bin",
        )
    (package / "extra").write_text("?")
    refused(lambda: export(package, "zip", tmp_path / "out", **AGREED), ExitCode.INPUT, "extra")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


def test_random_weights_and_licences_that_ask_for_agreement_stop_an_export(
    package: Path, tmp_path: Path
) -> None:
    refused(
        lambda: export(package, "zip", tmp_path / "o", accepted=("unstated",)),
        ExitCode.USAGE,
        "--allow-dummy",
    )
    refused(
        lambda: export(package, "zip", tmp_path / "o", allow_dummy=True),
        ExitCode.USAGE,
        "--accept-license unstated",
    )
    assert refusal("apache-2.0", ()) is None
    asking = [name for name, row in known().items() if row.get("agreement")]
    assert asking == ["tongyi-qianwen", "tongyi-qianwen-research", "qwen", "qwen-research"]
    for name in asking:
        assert (
            name in str(refusal(name, ("apache-2.0",))) and refusal(name, (name.upper(),)) is None
        )
    assert "mit" in str(refusal("mit", ()))
    assert (spdx("apache-2.0"), spdx("qwen-research"), spdx(None)) == (
        "Apache-2.0",
        "LicenseRef-Qwen-Research",
        "NOASSERTION",
    )


def test_an_export_replaces_nothing_and_never_goes_into_the_package(
    package: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    for name in ANY_ENGINE:
        refused(
            lambda name=name: export(package, name, tmp_path / "taken", **AGREED),
            ExitCode.USAGE,
            "already exists",
        )
        refused(
            lambda name=name: export(package, name, package / "out", **AGREED),
            ExitCode.USAGE,
            "inside the package",
        )
    refused(
        lambda: export(package, "rar", tmp_path / "o", **AGREED), ExitCode.USAGE, "rar", "Known"
    )
    refused(
        lambda: export(package, "oci", tmp_path / "o", limit=1 << 20, **AGREED),
        ExitCode.USAGE,
        "below a size",
    )
    assert (tmp_path / "taken").read_text() == "mine"


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


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_first_piece_is_asked_for_and_the_last_one_missed(tmp_path: Path, name: str) -> None:
    first = exported(big_package(tmp_path / "tiny"), name, tmp_path / "out", limit=1 << 16)
    refused(
        lambda: unpack(tmp_path / "out.002", tmp_path / "back"),
        ExitCode.INPUT,
        f"name the first: {first}",
    )
    max(tmp_path.glob("out.*")).unlink()
    refused(lambda: unpack(first, tmp_path / "back"), ExitCode.INPUT, "out.001")


def test_pieces_without_their_list_are_no_whole_folder(package: Path, tmp_path: Path) -> None:
    cut = exported(big_package(tmp_path / "large" / "tiny"), "dir", tmp_path / "cut", limit=1 << 16)
    (cut / "pieces.json").unlink()
    refused(
        lambda: join(cut, tmp_path / "back"), ExitCode.INPUT, "pieces.json along with the pieces"
    )
    refused(lambda: join(package, tmp_path / "back"), ExitCode.USAGE, "its files are whole")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    refused(lambda: unpack(tmp_path / "text", tmp_path / "back"), ExitCode.INPUT, "neither")
    refused(lambda: unpack(tmp_path / "absent", tmp_path / "back"), ExitCode.USAGE, "no file")
    (tmp_path / "back").mkdir()
    refused(lambda: unpack(tmp_path / "text", tmp_path / "back"), ExitCode.USAGE, "already exists")
