"""The safetensors format: one bad file for every rule, and the safetensors library as the second
opinion."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from packager.checkpoint.header import MAX_HEADER_BYTES, read_header
from packager.errors import ExitCode, PackError
from tests.support.damage import WEIGHTS, safetensors
from tests.support.make_checkpoint import write_tiny

ONE = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
BAD_FILES = {
    "empty": (b"", "ends inside its header"),
    "no header": (struct.pack("<Q", 0), "start with '{'"),
    "half a length": (b"\x08\x00\x00", "ends inside its header"),
    "header longer than the file": (struct.pack("<Q", 1000) + b"{}", "ends inside its header"),
    "absurd header length": (struct.pack("<Q", 1 << 63) + b"{}", str(MAX_HEADER_BYTES)),
    "leading space": (safetensors(b" {}"), "start with '{'"),
    "no JSON": (safetensors(b"{oops}"), "not valid JSON"),
    "not UTF-8": (safetensors(b'{"\xff": 1}'), "not valid JSON"),
    "nested without end": (safetensors(b'{"a":' * 50_000), "not valid JSON"),
    "not a number": (safetensors(b'{"a": NaN}'), "not valid JSON"),
    "same name twice": (
        safetensors(b'{"a": %b, "a": %b}' % ((json.dumps(ONE).encode(),) * 2), bytes(4)),
        "'a' twice",
    ),
    "metadata that is not text": (safetensors({"__metadata__": {"step": 1}}), "__metadata__"),
    "entry that is not an object": (safetensors({"a": 7}), "not described"),
    "entry without offsets": (safetensors({"a": {"dtype": "BF16", "shape": [2]}}), "not described"),
    "unknown type": (safetensors({"a": {**ONE, "dtype": "BF17"}}, bytes(4)), "unknown type 'BF17'"),
    "type that is not text": (
        safetensors({"a": {**ONE, "dtype": []}}, bytes(4)),
        "unknown type []",
    ),
    "quantized type of another size": (
        safetensors({"a": {**ONE, "dtype": "F8_E4M3", "shape": [3]}}, bytes(4)),
        "takes 3 bytes",
    ),
    "negative size": (safetensors({"a": {**ONE, "shape": [-2]}}, bytes(4)), "impossible shape"),
    "size that is true": (
        safetensors({"a": {**ONE, "shape": [True, 2]}}, bytes(4)),
        "impossible shape",
    ),
    "size beyond 64 bits": (
        safetensors({"a": {**ONE, "shape": [1 << 70]}}, bytes(4)),
        "impossible shape",
    ),
    "sizes that overflow": (
        safetensors({"a": {**ONE, "shape": [1 << 40, 1 << 40]}}, bytes(4)),
        "data_offsets span 4",
    ),
    "three offsets": (
        safetensors({"a": {**ONE, "data_offsets": [0, 2, 4]}}, bytes(4)),
        "impossible data_offsets",
    ),
    "offsets that run backwards": (
        safetensors({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4)),
        "impossible data_offsets",
    ),
    "shape that disagrees with the offsets": (
        safetensors({"a": {**ONE, "shape": [3]}}, bytes(4)),
        "takes 6 bytes",
    ),
    "overlap": (
        safetensors({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, bytes(6)),
        "'b' overlaps",
    ),
    "gap": (
        safetensors({"a": ONE, "b": {**ONE, "data_offsets": [6, 10]}}, bytes(10)),
        "gap before",
    ),
    "first tensor not at the beginning": (
        safetensors({"a": {**ONE, "data_offsets": [2, 6]}}, bytes(6)),
        "gap before",
    ),
    "cut short": (safetensors({"a": ONE}, bytes(3)), "cut short"),
    "bytes behind the last tensor": (safetensors({"a": ONE}, bytes(5)), "belong to none"),
}


@pytest.mark.parametrize(("data", "rule"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_breaks_a_rule_is_refused_with_the_file_and_the_rule_named(
    tmp_path: Path, data: bytes, rule: str
) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(PackError) as caught:
        read_header(path)
    assert caught.value.exit_code == ExitCode.INPUT
    assert str(path) in caught.value.message
    assert rule in caught.value.message


def test_tensors_come_in_stored_order_whatever_the_order_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        safetensors(
            {
                "b": {**ONE, "data_offsets": [4, 8]},
                "empty": {**ONE, "shape": [0, 3], "data_offsets": [4, 4]},
                "a": ONE,
            },
            bytes(8),
        )
    )
    assert [tensor.name for tensor in read_header(path)] == ["a", "empty", "b"]


@settings(deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.binary(max_size=100).map(lambda text: safetensors(b"{" + text))
)
def test_no_bytes_raise_anything_but_a_pack_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "x.safetensors"
    path.write_bytes(data)
    try:
        read_header(path)
    except PackError as error:
        assert error.exit_code == ExitCode.INPUT


sizes = st.integers(0, 5) | st.sampled_from([-1, True, 1.0, "1", None, 1 << 64])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["BF16", "F16", "F32", "I8", "X", None]),
        "shape": st.lists(sizes, max_size=3) | st.none(),
        "data_offsets": st.lists(sizes, min_size=2, max_size=2)
        | st.lists(sizes, max_size=3)
        | st.just({}),
    },
    optional={"more": st.none()},
)
headers = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__"]),
    entries | st.integers() | st.dictionaries(st.text(max_size=2), st.text(max_size=2)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(header=headers, data=st.integers(0, 24).map(bytes))
def test_what_is_accepted_here_is_accepted_by_the_safetensors_library(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "x.safetensors"
    path.write_bytes(safetensors(header, data))
    try:
        ours = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in read_header(path)}
    except PackError:
        return
    with safe_open(path, framework="np") as library:
        assert ours == {
            name: (library.get_slice(name).get_dtype(), library.get_slice(name).get_shape())
            for name in library.keys()  # noqa: SIM118
        }


@given(cut=st.integers(1, 4000), flip=st.integers(0, 2500), bit=st.integers(0, 7))
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_damage_to_a_real_file_is_found_or_harmless(
    tmp_path: Path, cut: int, flip: int, bit: int
) -> None:
    whole = (
        write_tiny(tmp_path / "whole") / WEIGHTS
        if not (tmp_path / "whole").exists()
        else tmp_path / "whole" / WEIGHTS
    )
    path = tmp_path / "damaged.safetensors"
    data = bytearray(whole.read_bytes())
    path.write_bytes(data[:-cut])
    with pytest.raises(PackError):
        read_header(path)
    data[flip] ^= 1 << bit
    path.write_bytes(data)
    try:
        read_header(path)
    except PackError:
        return
    with safe_open(path, framework="np"):
        pass


def test_the_library_is_the_more_lenient_one(tmp_path: Path) -> None:
    """The one rule that only this reader knows: the library takes the last of two tensors with one
    name."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD_FILES["same name twice"][0])
    try:
        with safe_open(path, framework="np") as library:
            assert list(library.keys()) == ["a"]
    except SafetensorError:
        pytest.skip("this version of the library refuses it too")
