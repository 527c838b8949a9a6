"""Files from outside are refused before they cost anything: settings, expressions, listings,
matrices, cards and archives that claim more than they have."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest
import zstandard

from packager import limits
from packager.checkpoint.kinds import check_config, check_tokenizer_config
from packager.checkpoint.tokenizer import check_definition
from packager.errors import ExitCode, PackError
from packager.foreign import bounded_bytes, names_in
from packager.package import manifest
from packager.papers import licence
from packager.shipping.unpack import unpack
from targets.gguf import model_card
from targets.gguf.imatrix import read_imatrix
from tests.support.damage import edit_json, refused
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import body
from tests.support.shipping_packages import finish


def test_a_file_is_not_given_more_room_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert bounded_bytes(path, 1 << 40) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(PackError, match="more than 4 bytes"):
        bounded_bytes(path, 4)
    # A pipe into which nobody writes is not waited for, and no device is read.
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(PackError, match="not a file") as caught:
            bounded_bytes(other, 4)
        assert caught.value.exit_code == ExitCode.INPUT


def test_a_checkpoint_is_refused_before_its_size_is_read(tmp_path: Path) -> None:
    """Files with a hole, as large as they say and without a byte on the disk."""
    for name, size in (
        ("LICENSE", 5 << 30),
        ("config.json", 1 << 30),
        ("tokenizer.json", 1 << 30),
        ("chat_template.jinja", 64 << 20),
    ):
        folder = write_tiny(tmp_path / name)
        with (folder / name).open("ab") as file:
            file.truncate(size)
        refused(folder, name)


def test_a_config_that_describes_a_million_layers_is_refused(tmp_path: Path) -> None:
    """Before anything is made of them: they would take gigabytes."""
    for key, value in (("num_hidden_layers", 1_000), ("num_hidden_layers", 1_000_000)):
        folder = write_tiny(tmp_path / str(value))
        edit_json(folder / "config.json", **{key: value})
        tracemalloc.start()
        try:
            refused(folder)
            assert tracemalloc.get_traced_memory()[1] < 50 << 20
        finally:
            tracemalloc.stop()


def test_a_setting_of_the_wrong_kind_names_its_file_and_its_key(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "x")
    for name, key, value in (
        ("config.json", "rope_scaling", 3),
        ("config.json", "rope_theta", "high"),
        ("config.json", "layer_types", {"a": 1}),
        ("config.json", "eos_token_id", ["end"]),
        ("config.json", "rope_parameters", {"factor": []}),
        ("tokenizer_config.json", "added_tokens_decoder", {"first": {"content": "x"}}),
        ("tokenizer_config.json", "added_tokens_decoder", {"1": {"content": 1}}),
        ("tokenizer_config.json", "eos_token", 5),
        ("tokenizer_config.json", "model_max_length", "long"),
        ("generation_config.json", "temperature", "warm"),
        ("generation_config.json", "top_k", 1.5),
        ("generation_config.json", "top_p", 10**400),
        ("generation_config.json", "top_p", float("nan")),
    ):
        path = folder / name
        genuine = path.read_bytes() if path.exists() else b"{}"
        path.write_bytes(genuine)
        edit_json(path, **{key: value})
        refused(folder, name, key)
        path.write_bytes(genuine)


def test_every_genuine_setting_is_of_its_kind(shared: Path) -> None:
    checks = {
        "configs/*.json": check_config,
        "tokenizer_configs/*.json": check_tokenizer_config,
        "tokenizer_json/*.json": check_definition,
    }
    for pattern, check in checks.items():
        files = sorted((shared / "qwen").glob(pattern))
        assert files, pattern
        for file in files:
            check(file, json.loads(file.read_bytes()))


def test_only_the_expressions_of_qwen_are_run(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "x")
    path = folder / "tokenizer.json"
    genuine = json.loads(path.read_bytes())
    split = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    replace = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    for stage, part in (
        ("pre_tokenizer", split),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace]}),
        ("decoder", {"type": "Sequence", "decoders": [replace]}),
        ("normalizer", "NFC"),
    ):
        path.write_text(json.dumps({**genuine, stage: part}))
        refused(folder, "tokenizer.json", stage)


def test_licences_are_copied_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "package").mkdir()
    with (tmp_path / "checkpoint" / "LICENSE").open("wb") as file:
        file.truncate(limits.LICENSE_BYTES + 1)
    with pytest.raises(PackError, match="LICENSE"):
        licence.write(
            tmp_path / "package", tmp_path / "checkpoint", {"repo_id": "a/b"}, "x", dummy=False
        )


def test_a_folder_without_end_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FOLDER_NAMES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(PackError, match="more than 10 files"):
        names_in(tmp_path)


def imatrix(*values: bytes, tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(values)) + b"".join(values)


def array(kind: gguf.GGUFValueType, items: int) -> bytes:
    return struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, kind, items)


@pytest.mark.parametrize(
    "data",
    [
        imatrix(array(gguf.GGUFValueType.UINT8, 1 << 40)),
        imatrix(array(gguf.GGUFValueType.STRING, 1 << 40)),
        imatrix(array(gguf.GGUFValueType.UINT8, 60_000)),
        imatrix(array(gguf.GGUFValueType.ARRAY, 9)),
        imatrix(struct.pack("<Q", 1 << 40)),
        imatrix(tensors=1 << 40),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40),
        imatrix(tensors=1) + struct.pack("<QIQQIQ", 0, 2, 1 << 63, 1 << 63, 0, 0),
        imatrix(tensors=1) + struct.pack("<QIQIQ", 0, 1, 4, 99, 0),
        imatrix(tensors=1) + struct.pack("<QIQIQ", 0, 1 << 31, 4, 0, 0),
    ],
)
def test_an_importance_matrix_that_claims_more_than_it_has_is_refused_at_once(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    # To count to 2^40 takes longer than any test may.
    with pytest.raises(PackError, match="not an importance matrix"):
        read_imatrix(tmp_path / "m.gguf")


def test_a_model_card_counts_as_far_as_it_is_clean_yaml_and_a_note_says_where_it_is_not(
    tmp_path: Path,
) -> None:
    for text, found, note in (
        ("---\nlicense: mit\nversion: 1.5\ntags: [a, 3]\n---\n", {"license": "mit", "version": "1.5", "tags": ["a", "3"]}, None),
        ("---\nlanguage:\n- no\n---\n", {"language": ["no"]}, None),
        ("---\na: &x [1]\nb: *x\n---\n", {}, "more nested"),
        ("---\na: [\n---\n", {}, "not YAML at line 3"),
        ("---\na: |\n  " + "x" * 70_000 + "\n---\n", {}, "more than 65536 characters"),
        ("---\n? [a]\n: b\n---\n", {}, "not YAML"),
        ("---\n- a\n---\n", {}, "not a table"),
        ("---\na: 1\n", {}, "no end"),
        ("---\na: !!python/object/apply:os.system [id]\n---\n", {}, "not YAML"),
        ("---\nwhen: 2026-99-99\nname: x\n---\n", {}, "not YAML"),
        ('---\nlicense: mit\ntags: ["\\ud800"]\n---\n', {}, "not text"),
        ("# words\n", {}, None),
    ):  # fmt: skip
        (tmp_path / "README.md").write_text(text)
        card = model_card.read(tmp_path)
        assert card.entries == found, text
        assert (card.note is None) if note is None else (note in (card.note or "")), card
    (tmp_path / "README.md").write_bytes(b"---\n\xff\n---\n")
    assert "UTF-8" in (model_card.read(tmp_path).note or "")
    (tmp_path / "README.md").unlink()
    assert model_card.read(tmp_path).note is None
    (tmp_path / "README.md").mkdir()
    assert "not a file" in (model_card.read(tmp_path).note or "")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "README.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "secret.md").write_text("---\nlicense: mit\n---\n")
    assert "not a file of this folder" in (model_card.read(tmp_path / "c").note or "")


def small_archive(tmp_path: Path, size: int) -> Path:
    """A tar.zst of a hundred bytes whose manifest names one file of `size` zeros."""
    facts = {**body_of(), "files": [{"path": "model/x", "size": size, "sha256": "0" * 64}]}
    text = json.dumps(manifest.seal(facts)).encode()
    rows = b""
    for name, length, data in (
        ("tiny/manifest.json", len(text), text),
        ("tiny/model/x", size, b""),
    ):
        row = tarfile.TarInfo(name)
        row.size = length
        rows += row.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    path = tmp_path / "small.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(rows))
    return path


def body_of() -> dict[str, Any]:
    return {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "runtime": {"name": "openvino"},
        "recipe": {"id": "openvino:int8"},
        "variant": {"repo_id": "Qwen/Qwen3-0.6B"},
        "source": {"kind": "dummy"},
    }


def test_an_archive_that_says_it_holds_far_more_than_it_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="more than 200 times") as caught:
        finish(unpack(small_archive(tmp_path, 1 << 40), tmp_path / "out"))
    assert caught.value.exit_code == ExitCode.INPUT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.tar.zst"]


def test_a_manifest_lacks_nothing_that_an_export_reads(tmp_path: Path) -> None:
    from packager.shipping.export import export
    from tests.support.make_package import write_package

    (tmp_path / "p").mkdir()
    facts = body(write_package(tmp_path / "p"))
    for lacks, code in (("workload", None), ("recipe", 6), ("variant", 6)):
        manifest.write(tmp_path / "p", {key: value for key, value in facts.items() if key != lacks})
        work = export(
            tmp_path / "p", "oci", tmp_path / lacks, allow_dummy=True, accepted=("unstated",)
        )
        if code is None:
            finish(work)
            continue
        with pytest.raises(PackError) as caught:
            finish(work)
        assert caught.value.exit_code == code
    for lacks in ("recipe", "variant"):
        manifest.write(tmp_path / "p", {**facts, lacks: {}})
        place = tmp_path / f"no-{lacks}"
        finish(export(tmp_path / "p", "oci", place, allow_dummy=True, accepted=("unstated",)))
