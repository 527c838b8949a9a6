"""Patches between packages: small, and exactly the new package."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, from_foreign
from packager.files import sha256
from packager.package import manifest
from packager.package.verify import verify
from packager.shipping import patch as patching
from packager.shipping.chunks import content_chunks
from packager.shipping.delta import write_patch
from packager.shipping.patch import apply
from packager.shipping.patch_format import files_sha256
from tests.support.patches import MODEL, NEW, OLD, delta, nothing, write
from tests.support.shipping_packages import finish, tree

pytest_plugins = ("tests.support.fixtures.patches",)
pytestmark = pytest.mark.engine


def test_an_old_package_and_a_patch_are_the_new_package(
    old: Path, new: Path, patch: Path, tmp_path: Path
) -> None:
    before = tree(old)
    made = finish(apply(patch, old, tmp_path / "got"))
    assert tree(made.path) == tree(new)
    assert verify(made.path) == []
    assert tree(old) == before
    assert patch.stat().st_size < 2_000


def test_a_patch_names_the_digests_of_both_packages(old: Path, new: Path, tmp_path: Path) -> None:
    header = delta(old, new, tmp_path / "p").header
    assert header.old_sha256 == files_sha256(manifest.read(old).files)
    assert header.new_sha256 == sha256(new / manifest.NAME)
    assert header.new_bytes == sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def test_a_patch_is_the_same_bytes_wherever_it_is_made(
    old: Path, new: Path, tmp_path: Path
) -> None:
    places = f"Path({str(old)!r}), Path({str(new)!r}), Path({str(tmp_path / 'two')!r})"
    code = (
        "import os; os.umask(0o077); from pathlib import Path; from packager.shipping.delta import "
        "write_patch; "
        f"list(write_patch({places}, allow_dummy=True, accepted=('unstated',)))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    )
    assert delta(old, new, tmp_path / "one").path.read_bytes() == (tmp_path / "two").read_bytes()


CHANGES: dict[str, dict[str, bytes]] = {
    "nothing but the papers": {**OLD, "README.md": b"# new words\n"},
    "a byte in the middle": {
        **OLD,
        "model/model.bin": MODEL[:300_000] + bytes([MODEL[300_000] ^ 1]) + MODEL[300_001:],
    },
    "everything moved": {**OLD, "model/model.bin": b"x" * 777 + MODEL},
    "the beginning gone": {**OLD, "model/model.bin": MODEL[1234:]},
    "another name": {"model/other.bin": MODEL, "README.md": b"# a package\n", "LICENSE": b"free"},
    "in two files": {
        "model/1.bin": MODEL[:200_001],
        "model/2.bin": MODEL[200_001:],
        "LICENSE": b"free",
    },
    "parts exchanged": {**OLD, "model/model.bin": MODEL[400_000:] + MODEL[:400_000]},
    "twice": {**OLD, "model/model.bin": MODEL + MODEL},
    "empty": {"model/model.bin": b"", "LICENSE": b"free"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_old_package_has_anywhere_is_not_sent_again(
    old: Path, tmp_path: Path, change: str
) -> None:
    new = write(tmp_path / "new", CHANGES[change])
    made = delta(old, new, tmp_path / "p")
    # A cut between two files, or an exchange, costs up to a chunk on both of its sides.
    assert made.bytes < (
        160_000 if change in ("in two files", "parts exchanged", "twice") else 3_000
    )
    assert tree(finish(apply(made.path, old, tmp_path / "got")).path) == tree(new)


_edits = st.lists(
    st.tuples(st.integers(0, 300_000), st.integers(0, 50_000), st.binary(max_size=3_000)),
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(_edits, st.binary(max_size=200))
def test_any_edits_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, bytes]], end: bytes
) -> None:
    # What begins or ends as a program or an archive does would be refused.
    assume(b"PK" not in end)
    data = MODEL[:300_000]
    for at, gone, put in edits:
        data = data[:at] + put + data[at + gone :]
    folder = tmp_path_factory.mktemp("edits")
    old = write(folder / "old", {"model/a.bin": MODEL[:300_000], "model/b.bin": b"b"})
    new = write(
        folder / "new", {"model/a.bin": b"-" + data + end, "model/b.bin": b"-" + end}, version="2"
    )
    assert tree(
        finish(apply(delta(old, new, folder / "p").path, old, folder / "got")).path
    ) == tree(new)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=3_000), max_size=6), st.sampled_from([32, 256]), st.integers(0, 3)
)
def test_chunks_are_the_whole_stream_however_it_arrives(
    blocks: list[bytes], average: int, zeros: int
) -> None:
    blocks = [*blocks, bytes(zeros * 1_000)]
    data = b"".join(blocks)
    found = [bytes(chunk) for chunk in content_chunks(blocks, average)]
    assert b"".join(found) == data
    assert found == [bytes(chunk) for chunk in content_chunks([data], average)]
    assert all(average // 4 <= len(chunk) <= average * 8 for chunk in found[:-1])


def test_what_is_inserted_moves_only_the_cuts_beside_it() -> None:
    one = {bytes(chunk) for chunk in content_chunks([MODEL], 1 << 12)}
    other = [
        bytes(chunk)
        for chunk in content_chunks([MODEL[:100_001] + b"new" + MODEL[100_001:]], 1 << 12)
    ]
    assert len(other) > 80
    assert sum(chunk not in one for chunk in other) <= 3


def test_places_that_are_taken_or_inside_a_package_are_refused(
    old: Path, new: Path, patch: Path, tmp_path: Path
) -> None:
    nothing(lambda: apply(patch, old, new), tmp_path, ExitCode.USAGE, "already exists")
    nothing(lambda: apply(patch, old, old / "got"), old, ExitCode.USAGE, "inside the package")
    agreed = {"allow_dummy": True, "accepted": ("unstated",)}
    nothing(
        lambda: write_patch(old, new, patch, **agreed), tmp_path, ExitCode.USAGE, "already exists"
    )
    nothing(
        lambda: write_patch(old, new, new / "p", **agreed),
        new,
        ExitCode.USAGE,
        "inside the package",
    )
    nothing(
        lambda: write_patch(old, old, tmp_path / "p", **agreed),
        tmp_path,
        ExitCode.USAGE,
        "same package",
    )


def test_a_patch_leaves_the_house_under_the_rules_of_an_export(
    old: Path, new: Path, tmp_path: Path
) -> None:
    nothing(
        lambda: write_patch(old, new, tmp_path / "p"), tmp_path, ExitCode.USAGE, "--allow-dummy"
    )
    nothing(
        lambda: write_patch(old, new, tmp_path / "p", allow_dummy=True),
        tmp_path,
        ExitCode.USAGE,
        "--accept-license",
    )


def test_packages_that_are_not_what_they_say_make_no_patch(
    old: Path, new: Path, tmp_path: Path
) -> None:
    agreed = {"allow_dummy": True, "accepted": ("unstated",)}
    (new / "model/model.bin").write_bytes(NEW["model/model.bin"][:-1] + b"!")
    nothing(lambda: write_patch(old, new, tmp_path / "p", **agreed), tmp_path, ExitCode.INPUT)
    write(new, NEW)
    (old / "more").write_bytes(b"")
    nothing(
        lambda: write_patch(old, new, tmp_path / "p", **agreed), tmp_path, ExitCode.INPUT, "more"
    )


def test_a_disk_without_room_is_found_before_and_while_writing(
    old: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(patching, "free_bytes", lambda path: 1_000)
        nothing(lambda: apply(patch, old, tmp_path / "got"), tmp_path, ExitCode.RESOURCE, "free")
    # The system's own refusal to write: no file may grow beyond this.
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            finish(apply(patch, old, tmp_path / "got"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    known = from_foreign(caught.value)
    assert known is not None and known.exit_code == ExitCode.RESOURCE
    assert sorted(tmp_path.iterdir()) == before


def test_a_killed_process_leaves_no_package_and_the_next_removes_what_it_left(
    old: Path, new: Path, patch: Path, tmp_path: Path
) -> None:
    code = (
        "import os, signal; from pathlib import Path; from packager.shipping.patch import apply; "
        f"work = apply(Path({str(patch)!r}), Path({str(old)!r}), Path({str(tmp_path / 'got')!r})); "
        "next(work); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "got").exists()
    assert list(tmp_path.glob(".qwen-pack-*"))
    assert tree(finish(apply(patch, old, tmp_path / "got")).path) == tree(new)
    assert not list(tmp_path.glob(".qwen-pack-*"))


def test_the_commands_make_and_apply_a_patch(
    old: Path,
    new: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["delta", "old", "new", "--allow-dummy", "--accept-license", "unstated", "--json"])
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "qwen-pack/delta/1"
    assert (
        said["path"] == str(tmp_path / "tiny.patch")
        and said["bytes"] == (tmp_path / "tiny.patch").stat().st_size
    )
    assert said["old"]["files_sha256"] == files_sha256(manifest.read(old).files)
    assert said["new"]["manifest_sha256"] == sha256(new / manifest.NAME)
    assert main(["patch", "tiny.patch", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["package"] == str(tmp_path / "tiny")
    assert tree(tmp_path / "tiny") == tree(new)
    assert main(["patch", "tiny.patch", "new", "--out", "more"]) == ExitCode.INPUT
    assert main(["patch", "no.patch", "old", "--out", "more"]) == ExitCode.USAGE
    assert not (tmp_path / "more").exists()
