"""The header in front of the weights: read back by the gguf package's own reader, whatever the keys
and tensors are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.gguf import header
from targets.gguf.kernels import row_bytes
from targets.gguf.tensors import ALIGNMENT, OutTensor, Part, library_order, padded, place

pytestmark = pytest.mark.engine

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VALUES = st.one_of(
    st.tuples(st.just(gguf.GGUFValueType.STRING), TEXT),
    st.tuples(st.just(gguf.GGUFValueType.UINT32), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(gguf.GGUFValueType.UINT64), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(gguf.GGUFValueType.FLOAT32), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(gguf.GGUFValueType.BOOL), st.booleans()),
    st.tuples(st.just(gguf.GGUFValueType.ARRAY), st.lists(TEXT, min_size=1, max_size=6)),
    st.tuples(
        st.just(gguf.GGUFValueType.ARRAY),
        st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=6),
    ),
    st.tuples(st.just(gguf.GGUFValueType.ARRAY), st.lists(st.booleans(), min_size=1, max_size=6)),
)
TENSORS = st.lists(
    st.tuples(
        st.sampled_from(["F32", "F16", "Q8_0", "Q4_0"]),
        st.lists(st.integers(1, 5), min_size=0, max_size=2),
        st.integers(1, 4),
    ),
    max_size=6,
)


@given(
    values=st.dictionaries(
        st.from_regex(r"\A[a-z][a-z0-9_.]{0,30}\Z").filter(lambda key: key != "general.alignment"),
        VALUES,
        max_size=8,
    ),
    shapes=TENSORS,
)
@settings(max_examples=150, deadline=None)
def test_keys_and_tensors_are_read_back_as_they_were_written(
    values: dict[str, tuple[gguf.GGUFValueType, object]], shapes: list[tuple[str, list[int], int]]
) -> None:
    tensors = [
        OutTensor(f"blk.{place}.t.weight", (*outer, 32 * blocks), ())
        for place, (_, outer, blocks) in enumerate(shapes)
    ]
    types = {tensor.name: kind for tensor, (kind, _, _) in zip(tensors, shapes, strict=True)}
    typed = list(place(tensors, types, row_bytes))
    head = header.encode(
        {key: gguf.GGUFValue(value, kind) for key, (kind, value) in values.items()}, typed
    )
    assert len(head) % ALIGNMENT == 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(head + bytes(sum(padded(entry.nbytes) for entry in typed)))
        reader = gguf.GGUFReader(path)
        found = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        assert found == {key: value for key, (_, value) in values.items()}
        seen = [
            (
                t.name,
                t.tensor_type.name,
                tuple(int(n) for n in reversed(t.shape)),
                int(t.n_bytes),
                t.data_offset,
            )
            for t in reader.tensors
        ]
    assert seen == [
        (e.tensor.name, e.type, e.tensor.shape, e.nbytes, len(head) + e.offset) for e in typed
    ]


def test_every_tensor_starts_aligned_right_behind_the_one_before() -> None:
    tensors = [
        OutTensor("a", (3,), (Part("a", 0, 1),)),
        OutTensor("b", (2, 32), (Part("b", 0, 2),)),
        OutTensor("c", (1,), (Part("c", 0, 1),)),
    ]
    typed = list(place(tensors, {"a": "F32", "b": "Q8_0", "c": "F32"}, row_bytes))
    assert [(entry.offset, entry.nbytes) for entry in typed] == [(0, 12), (32, 68), (128, 4)]


def test_tensors_stand_in_the_order_of_the_library() -> None:
    names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "token_embd.weight", "blk.0.z"]
    found = sorted((OutTensor(name, (1,), ()) for name in names), key=library_order)
    assert [tensor.name for tensor in found] == [
        "output.weight",
        "token_embd.weight",
        "blk.0.z",
        "blk.2.a",
        "blk.2.b",
        "blk.10.a",
    ]


def test_a_lone_surrogate_in_a_token_does_not_stop_the_build() -> None:
    head = header.encode({"t": gguf.GGUFValue(["\ud800"], gguf.GGUFValueType.ARRAY)}, [])
    assert b"\xed\xa0\x80" in head
