"""What comes from outside costs time and memory in proportion to its size, or is refused before it
costs anything."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from packager import limits
from packager.checkpoint import tiktoken
from packager.checkpoint.adapter import Adapter
from packager.checkpoint.header import read_header
from packager.checkpoint.kinds import check_config, check_tokenizer_config
from packager.checkpoint.tokenizer import check_definition
from packager.errors import ExitCode, PackError
from packager.foreign import bounded_bytes, load_toml, names_in, parse_json
from packager.package import manifest
from packager.papers import licence
from packager.shape import Shape
from packager.shipping.registry import _layers
from packager.shipping.tar_reader import members
from packager.shipping.unpack import unpack
from targets.gguf import model_card
from targets.gguf.imatrix import read_imatrix
from tests.support.damage import edit_json, refused, safetensors
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import body
from tests.support.shipping_packages import finish

MEASURED = 1500
"""Things in the smaller of two inputs; the larger has four times as many."""
TRIES = 20
"""Tries of both inputs on a machine that is busy; on a calm one the first is enough."""
FREE_BYTES = 2 << 20


def header(count: int, folder: Path) -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    names = [f'"{number}":{entry}' for number in range(count)]
    path = folder / "model.safetensors"
    path.write_bytes(safetensors(f"{{{','.join([*names, names[-1]])}}}".encode()))
    read_header(path)


def small_objects(count: int, folder: Path) -> None:
    parse_json(b"[" + b'{"":[]},' * (10 * count) + b"0]", "x")


def deep(count: int, folder: Path) -> None:
    parse_json(b"[" * count, "x")


def token(count: int, folder: Path) -> None:
    ranks = {b"a" * (1 << power): power for power in range(20)}
    tiktoken.halves(ranks, b"a" * count, 99)


def manifest_of_files(count: int, folder: Path) -> None:
    rows = [{"path": f"model/{number}", "size": 1, "sha256": "0" * 64} for number in range(count)]
    facts = {"schema": manifest.SCHEMA, "name": "x", "files": rows, "runtime": {"name": "x"}}
    more = {"recipe": {"id": "x"}, "variant": {"repo_id": "x"}, "source": {}}
    manifest.parse(json.dumps(manifest.seal({**facts, **more})).encode(), "x")


def layers(count: int, folder: Path) -> None:
    row = {
        "annotations": {"org.cncf.model.filepath": "x"},
        "digest": "sha256:" + "0" * 64,
        "size": 1,
    }
    _layers(json.dumps({"artifactType": "x", "config": {}, "layers": [row] * count}).encode(), "x")


def pax_records(count: int, folder: Path) -> None:
    text = b"6 a=b\n" * count
    row = tarfile.TarInfo("x")
    row.type, row.size = tarfile.XHDTYPE, len(text)
    data = row.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)
    list(members(io.BytesIO(data + bytes(1024)), "x"))


def pax_headers(count: int, folder: Path) -> None:
    row = tarfile.TarInfo("x")
    row.type = tarfile.XHDTYPE
    list(members(io.BytesIO(row.tobuf(tarfile.USTAR_FORMAT) * count + bytes(1024)), "x"))


def empty_members(count: int, folder: Path) -> None:
    row = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    list(members(io.BytesIO(row * (4 * count) + bytes(1024)), "x"))


def zip_members(count: int, folder: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"x/{number}", b"")
    (folder / "x.zip").write_bytes(out.getvalue())
    started = time.thread_time()
    with suppress(PackError):
        finish(unpack(folder / "x.zip", folder / "out"))
    raise Took(time.thread_time() - started)


def dotted_key(count: int, folder: Path) -> None:
    load_toml("a." * (10 * count) + "a = 1")


def nested_card(count: int, folder: Path) -> None:
    (folder / "README.md").write_text("---\na: " + "[" * count + "\n---\n")
    model_card.read(folder)


def aliases(count: int, folder: Path) -> None:
    rows = ["a0: &a0 [x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, min(count, 300))]
    (folder / "README.md").write_text("\n".join(["---", *rows, "---"]))
    model_card.read(folder)


def many_layers(count: int, folder: Path) -> None:
    config = {"model_type": "qwen3", "hidden_size": 1, "num_attention_heads": 1, "vocab_size": 1}
    Shape.from_config({**config, "num_key_value_heads": 1, "num_hidden_layers": count * 1000}, "x")


def expressions(count: int, folder: Path) -> None:
    part = {"type": "Split", "pattern": {"Regex": "(a+)+$"}}
    definition = {"model": {}, "pre_tokenizer": {"pretokenizers": [part] * count}}
    check_definition(folder, definition)


def adapter(folder: Path, modules: int, patterns: int) -> None:
    """LoRA of rank 1 on so many modules, with patterns that match none of them."""
    rows: dict[str, Any] = {}
    for number in range(2 * modules):
        side, place = "AB"[number % 2], number // 2
        rows[f"base_model.model.model.layers.{place}.mlp.up_proj.lora_{side}.weight"] = {
            "dtype": "F32",
            "shape": [1, 1],
            "data_offsets": [4 * number, 4 * number + 4],
        }
    (folder / "adapter_model.safetensors").write_bytes(safetensors(rows, bytes(8 * modules)))
    alphas = {f"layers_{number}": 1 for number in range(patterns)}
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "alpha_pattern": alphas}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    started = time.thread_time()
    with suppress(PackError):
        Adapter.open(folder)
    raise Took(time.thread_time() - started)


def adapter_of_many_modules(count: int, folder: Path) -> None:
    adapter(folder, count // 3, 4)


def adapter_of_many_patterns(count: int, folder: Path) -> None:
    adapter(folder, 4, count)


def adapter_of_both(count: int, folder: Path) -> None:
    adapter(folder, count // 4, count // 4)


class Took(Exception):
    """CPU seconds of the part that counts, where making the input costs more."""


COSTS: list[Callable[[int, Path], None]] = [
    header, small_objects, deep, token, manifest_of_files, layers, pax_records, pax_headers,
    empty_members, zip_members, dotted_key, nested_card, aliases, many_layers, expressions,
    adapter_of_many_modules, adapter_of_many_patterns, adapter_of_both,
]  # fmt: skip


def cost(work: Callable[[int, Path], None], count: int, folder: Path) -> float:
    """CPU seconds of one try."""
    folder.mkdir()
    started = time.thread_time()
    try:
        with suppress(PackError, ValueError):
            work(count, folder)
        return time.thread_time() - started
    except Took as took:
        return float(took.args[0])


def test_four_times_as_much_takes_four_times_as_long(tmp_path: Path) -> None:
    """Quadratic work would take sixteen times as long; 5 ms are nothing.

    A busy machine makes single tries slower, never faster: the least of as many tries as it
    takes is compared, and work that is quadratic is so in every one of them.
    """
    # The collector looks through all that the tests hold whenever enough is made.
    gc.disable()
    try:
        for work in COSTS:
            small = large = math.inf
            for attempt in range(TRIES):
                room = tmp_path / f"{work.__name__}-{attempt}"
                room.mkdir()
                small = min(small, cost(work, MEASURED, room / "small"))
                large = min(large, cost(work, 4 * MEASURED, room / "large"))
                if large < 9 * small + 0.005:
                    break
            else:
                pytest.fail(f"{work.__name__} took {small:.4f} s and then {large:.4f} s")
    finally:
        gc.enable()


def test_json_takes_memory_in_proportion_to_its_length() -> None:
    for text in (b'{"":[]},', b"[],", b'"a",', b"0.1,", b"[[[]]],", b'{"a":{"b":{}}},'):
        data = b"[" + text * (400_000 // len(text)) + b"0]"
        tracemalloc.start()
        try:
            parse_json(data, "x")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < limits.BYTES_PER_BYTE * len(data) + FREE_BYTES, text


def test_json_is_refused_by_its_counts_before_anything_is_made_of_it() -> None:
    for text, words in (
        (b"[" + b"{}," * limits.JSON_CONTAINERS + b"0]", "objects and lists"),
        (b"[" + b"0," * (limits.JSON_VALUES + 1) + b"0]", "values"),
        (b"[" * 200_000, "not valid JSON"),
        (b'"\\ud800"', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
    ):
        with pytest.raises(PackError, match=words) as caught:
            parse_json(text, "x.json")
        assert caught.value.exit_code == ExitCode.INPUT
        assert len(str(caught.value)) < 1000
    assert parse_json(b'"\\ud83d\\ude00"', "x") == "\U0001f600"


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


def halves_as_written_down(ranks: dict[bytes, int], token: bytes, rank: int) -> list[bytes]:
    """Byte-pair encoding as it is defined: the best pair of all, again and again."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        best, at = min(
            (ranks.get(parts[at] + parts[at + 1], rank), at) for at in range(len(parts) - 1)
        )
        if best >= rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


@given(
    st.lists(
        st.binary(min_size=2, max_size=6).map(lambda text: bytes(97 + at % 3 for at in text)),
        max_size=30,
    ),
    st.data(),
)
def test_a_token_is_made_of_the_halves_that_byte_pair_encoding_joins_last(
    words: list[bytes], data: st.DataObject
) -> None:
    ranks = {word: at for at, word in enumerate(dict.fromkeys([b"a", b"b", b"c", *words]))}
    token = data.draw(st.lists(st.sampled_from(b"abc"), min_size=2, max_size=12).map(bytes))
    rank = ranks.get(token, len(ranks))
    expected = halves_as_written_down(ranks, token, rank)
    if len(expected) == 2:
        assert list(tiktoken.halves(ranks, token, rank)) == expected
    else:
        with pytest.raises(PackError):
            tiktoken.halves(ranks, token, rank)
