"""A patch that is damaged, forged or of another package leaves nothing and ends in one sentence."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.shipping.patch import apply
from packager.shipping.patch_format import Data, Header, Stretch, encode, files_sha256
from tests.support.patches import MODEL, NEW, OLD, delta, described, nothing, write
from tests.support.shipping_packages import finish, tree

pytest_plugins = ("tests.support.fixtures.patches",)
pytestmark = pytest.mark.engine


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
