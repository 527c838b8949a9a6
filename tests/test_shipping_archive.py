"""Export and unpack: the same bytes everywhere, lossless, and in pieces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.catalog.licences import known, refusal, spdx
from packager.errors import ExitCode, PackError, from_foreign
from packager.files import sha256
from packager.package import manifest
from packager.shipping import pieces
from packager.shipping.export import FORMATS, export
from packager.shipping.folder import join
from packager.shipping.unpack import unpack
from tests.support.make_package import body, write_package
from tests.support.shipping_packages import AGREED, ARCHIVES, exported, finish, refused, tree

pytestmark = pytest.mark.engine

ANY_ENGINE = [row.name for row in FORMATS.values() if not row.runtimes]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "tiny"
    folder.mkdir(parents=True)
    return write_package(folder)


@pytest.mark.parametrize("name", ["dir", "zip", "docker"])
def test_a_place_that_is_taken_while_an_export_runs_is_named_and_kept(
    package: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    work = export(package, name, out, **AGREED)
    next(work)
    if name == "zip":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises((OSError, PackError)) as failure:
        finish(work)
    known_error = from_foreign(failure.value)
    assert known_error is not None and known_error.exit_code == ExitCode.USAGE
    assert "out" in known_error.message and "nothing is replaced" in known_error.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]
    assert (out if name == "zip" else out / "mine").read_text() == "mine"


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
    assert {"tongyi-qianwen", "tongyi-qianwen-research", "qwen", "qwen-research"} <= set(asking)
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
