"""Patches between packages: small, and exactly the new package or nothing, whatever the patch or
the old package turn out to be."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError, from_foreign
from packager.files import sha256
from packager.package import manifest
from packager.package.verify import verify
from packager.shipping import patch as patching
from packager.shipping.chunks import content_chunks
from packager.shipping.delta import Made, write_patch
from packager.shipping.patch import apply
from packager.shipping.patch_format import Data, Header, Stretch, encode, files_sha256
from tests.test_shipping_archive import finish, tree

pytestmark = pytest.mark.engine

MODEL = random.Random(1).randbytes(600_000)
OLD = {"model/model.bin": MODEL, "README.md": b"# a package\n", "LICENSE": b"free"}
NEW = {
    "model/model.bin": MODEL[:9_000] + b"a longer template" * 9 + MODEL[9_100:],
    "README.md": b"# another\n",
    "LICENSE": b"free",
}


def write(folder: Path, files: dict[str, bytes], **more: Any) -> Path:
    """A package of those files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    folder.mkdir(exist_ok=True)
    (folder / manifest.NAME).write_bytes(described(files, **more))
    return folder


def described(files: dict[str, bytes], **more: Any) -> bytes:
    """The manifest of a package of those files."""
    body = {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "runtime": {"name": "llama.cpp", "version": "1"},
        "recipe": {"id": "gguf:Q4_K_M", "kv": "f16"},
        "variant": {"repo_id": "Qwen/Qwen3-0.6B"},
        "source": {"kind": "dummy"},
        "workload": {"context": 128},
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        ],
    }
    return json.dumps(manifest.seal({**body, **more})).encode()


def delta(old: Path, new: Path, out: Path) -> Made:
    made: Made = finish(write_patch(old, new, out, allow_dummy=True, accepted=("unstated",)))
    return made


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", OLD)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write(tmp_path / "new", NEW)


@pytest.fixture
def patch(old: Path, new: Path, tmp_path: Path) -> Path:
    return delta(old, new, tmp_path / "tiny.patch").path


def nothing(work: Callable[[], Any], beside: Path, code: ExitCode, *words: str) -> None:
    """The work is refused with those words, and leaves nothing beside what was there."""
    before = sorted(beside.iterdir())
    with pytest.raises(PackError) as caught:
        finish(work())
    assert caught.value.exit_code == code, str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert sorted(beside.iterdir()) == before


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


def test_another_old_package_is_refused_by_its_digest(
    patch: Path, new: Path, tmp_path: Path
) -> None:
    third = write(tmp_path / "third", {**OLD, "LICENSE": b"other"})
    for wrong in (new, third):
        nothing(
            lambda wrong=wrong: apply(patch, wrong, tmp_path / "got"),
            tmp_path,
            ExitCode.INPUT,
            "starts from tiny",
        )


@pytest.mark.parametrize("at", [0, 20_000, 599_999])
def test_an_old_package_that_was_changed_is_found_and_nothing_written(
    old: Path, patch: Path, tmp_path: Path, at: int
) -> None:
    data = bytearray(MODEL)
    data[at] ^= 0x40
    (old / "model/model.bin").write_bytes(data)
    nothing(
        lambda: apply(patch, old, tmp_path / "got"),
        tmp_path,
        ExitCode.INPUT,
        "not what its manifest says",
    )


def test_figures_that_were_added_to_the_old_package_do_not_matter(
    old: Path, new: Path, patch: Path, tmp_path: Path
) -> None:
    (old / manifest.NAME).write_bytes(described(OLD, measurements=[{"decode_tps": 7.0}]))
    assert tree(finish(apply(patch, old, tmp_path / "got")).path) == tree(new)


def test_an_old_package_that_is_not_whole_is_refused(
    old: Path, patch: Path, tmp_path: Path
) -> None:
    (old / "LICENSE").unlink()
    nothing(lambda: apply(patch, old, tmp_path / "got"), tmp_path, ExitCode.INPUT, "LICENSE")
    (old / "LICENSE").symlink_to("/etc/hostname")
    nothing(lambda: apply(patch, old, tmp_path / "got"), tmp_path, ExitCode.INPUT, "LICENSE")
    (old / "LICENSE").unlink()
    (old / "LICENSE").write_bytes(b"fre")
    (old / "model/model.bin").write_bytes(MODEL[:-1])
    nothing(lambda: apply(patch, old, tmp_path / "got"), tmp_path, ExitCode.INPUT)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_patch_gives_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    old, new = write(folder / "old", OLD), write(folder / "new", NEW)
    raw = delta(old, new, folder / "p").path.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "more"]))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw = {
        "flip": raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :],
        "cut": raw[:at],
        "more": raw + raw[: at + 1],
    }[kind]
    (folder / "p").write_bytes(raw)
    with pytest.raises(PackError) as caught:
        finish(apply(folder / "p", old, folder / "got"))
    assert caught.value.exit_code in (ExitCode.INPUT, ExitCode.USAGE)
    assert sorted(path.name for path in folder.iterdir()) == ["new", "old", "p"]


def forged(
    old: Path,
    path: Path,
    text: bytes,
    *steps: Stretch | Data | None,
    end: bytes = b"",
    **header: Any,
) -> Path:
    """A patch with a right digest, whatever it says."""
    fields = {
        "old_name": "tiny",
        "old_sha256": files_sha256(manifest.read(old).files),
        "new_name": "tiny",
        "new_sha256": hashlib.sha256(text).hexdigest(),
        "new_bytes": len(text) + sum(row["size"] for row in json.loads(text)["files"]),
        "manifest_bytes": len(text),
    }
    raw = (
        Header(**{**fields, **header}).encode()
        + encode(fresh(text))
        + b"."
        + b"".join(encode(step) for step in steps)
        + end
    )
    path.write_bytes(raw + hashlib.sha256(raw).digest())
    return path


def fresh(data: bytes, **lies: Any) -> Data:
    packed = zstandard.ZstdCompressor().compress(data)
    return Data(**{"size": len(data), "reference": Stretch(0, 0, 0), "packed": packed, **lies})


BOMB = zstandard.ZstdCompressor().compress(bytes(1 << 28))
HOSTILE: dict[str, tuple[Stretch | Data | None, ...]] = {
    "no such file": (Stretch(9, 0, 4), None),
    "behind the end": (Stretch(0, 0, 5), None),
    "far behind the end": (Stretch(0, (1 << 64) - 1, 4), None),
    "longer than it says": (Stretch(0, 0, 4), Stretch(0, 0, 4), None),
    "shorter than it says": (Stretch(0, 0, 3), None),
    "a bomb": (fresh(b"", size=4, packed=BOMB), None),
    "an honest bomb": (fresh(b"", size=1 << 28, packed=BOMB), None),
    "no compression at all": (fresh(b"", size=4, packed=b"free"), None),
    "another size inside": (fresh(b"freedom", size=4), None),
    "a reference outside": (fresh(b"free", reference=Stretch(0, 3, 9)), None),
    "a reference to everything": (fresh(b"free", reference=Stretch(0, 0, (1 << 32) - 1)), None),
    "no end": (Stretch(0, 0, 4),),
    "other bytes": (fresh(b"evil"), None),
    "more behind the end": (Stretch(0, 0, 4), None, None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_forged_patch_writes_nothing(old: Path, tmp_path: Path, case: str) -> None:
    path = forged(old, tmp_path / "p", described({"LICENSE": b"free"}), *HOSTILE[case])
    nothing(lambda: apply(path, old, tmp_path / "got"), tmp_path, ExitCode.INPUT)


def test_a_forged_patch_without_a_lie_is_applied(old: Path, tmp_path: Path) -> None:
    path = forged(old, tmp_path / "p", described({"LICENSE": b"free"}), Stretch(0, 0, 4), None)
    assert (finish(apply(path, old, tmp_path / "got")).path / "LICENSE").read_bytes() == b"free"


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/outside", "a/../../outside", "manifest.json", "c:\\x", "a\0b"]
)
def test_a_patch_writes_no_path_outside_the_package(old: Path, tmp_path: Path, name: str) -> None:
    path = forged(old, tmp_path / "p", described({name: b"free"}), Stretch(0, 0, 4), None)
    nothing(lambda: apply(path, old, tmp_path / "got"), tmp_path, ExitCode.INPUT, "unsafe path")


@pytest.mark.parametrize(
    "lie",
    [
        {"new_bytes": 5},
        {"manifest_bytes": 1 << 40},
        {"new_bytes": -1},
        {"new_sha256": "../x"},
        {"new_name": "\x1b[2J"},
        {"manifest_bytes": 7},
    ],
)
def test_a_header_that_lies_is_refused(old: Path, tmp_path: Path, lie: dict[str, Any]) -> None:
    path = forged(
        old, tmp_path / "p", described({"LICENSE": b"free"}), Stretch(0, 0, 4), None, **lie
    )
    nothing(lambda: apply(path, old, tmp_path / "got"), tmp_path, ExitCode.INPUT)


def test_a_patch_that_names_its_package_like_a_path_needs_a_place(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forged(
        old,
        tmp_path / "p",
        described({"LICENSE": b"free"}),
        Stretch(0, 0, 4),
        None,
        new_name="../evil",
    )
    monkeypatch.chdir(old)
    assert main(["patch", str(path), str(old)]) == ExitCode.USAGE
    assert "Name the place with --out" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_a_patch_cut_inside_a_number_is_refused(old: Path, tmp_path: Path) -> None:
    path = forged(
        old, tmp_path / "p", described({"LICENSE": b"free"}), end=b"C" + struct.pack("<I", 1)
    )
    nothing(lambda: apply(path, old, tmp_path / "got"), tmp_path, ExitCode.INPUT, "damaged")


@pytest.mark.parametrize(
    "raw", [b"", b"qwen-pack patch 1\n", b"PK\3\4", b"qwen-pack patch 1\n" + bytes(40)]
)
def test_what_is_no_patch_is_refused(old: Path, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "p").write_bytes(raw)
    with pytest.raises(PackError) as caught:
        finish(apply(tmp_path / "p", old, tmp_path / "got"))
    assert caught.value.exit_code in (ExitCode.USAGE, ExitCode.INPUT)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_refused(old: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot be read"):
        finish(apply(Path("/proc/self/mem"), old, tmp_path / "got"))


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
