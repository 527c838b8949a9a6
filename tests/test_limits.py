"""What comes from outside costs time and memory in proportion to its size."""

from __future__ import annotations

import gc
import io
import json
import math
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import limits
from packager.checkpoint import tiktoken
from packager.checkpoint.adapter import Adapter
from packager.checkpoint.header import read_header
from packager.checkpoint.tokenizer import check_definition
from packager.errors import ExitCode, PackError
from packager.foreign import load_toml, parse_json
from packager.package import manifest
from packager.shape import Shape
from packager.shipping.registry import _layers
from packager.shipping.tar_reader import members
from packager.shipping.unpack import unpack
from targets.gguf import model_card
from tests.support.damage import safetensors
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
