"""Another chat template, name or licence leaves the tensors where they are, so that an update sends
the keys alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.shipping.patch import apply
from targets.gguf import header, padding
from targets.gguf.presets import ROOM
from targets.llama_cpp.session import Session
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint, keys
from tests.support.patches import delta, write
from tests.support.shipping_packages import finish, tree

pytestmark = pytest.mark.engine

BLOCK = 4096


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("padding") / "Qwen3-tiny-0.1B", SHAPES["qwen3"])


def with_template(source: Path, template: str | None, name: str, tmp_path: Path) -> Path:
    """The same weights with another template, in a folder of another name."""
    folder = Path(shutil.copytree(source, tmp_path / name))
    config = json.loads((source / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template is not None else {}))
    )
    return folder


def tensors_at(path: Path) -> dict[str, int]:
    return {tensor.name: int(tensor.data_offset) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    "template", [None, "{{ messages }}" * 50, "é{{ x }}" * 2_500], ids=["none", "short", "long"]
)
def test_another_template_changes_the_blocks_of_the_keys_alone(
    source: Path, template: str | None, tmp_path: Path
) -> None:
    before = build(source, tmp_path / "before.gguf", "Q4_K_M")
    after = build(
        with_template(source, template, source.name, tmp_path), tmp_path / "after.gguf", "Q4_K_M"
    )
    assert keys(after).get("tokenizer.chat_template") == template
    assert tensors_at(after) == tensors_at(before)
    old, new = before.read_bytes(), after.read_bytes()
    changed = [
        at for at in range(0, len(old), BLOCK) if old[at : at + BLOCK] != new[at : at + BLOCK]
    ]
    assert 0 < len(changed) <= ROOM // BLOCK + 1


def test_another_name_and_licence_move_no_tensor(source: Path, tmp_path: Path) -> None:
    before = build(source, tmp_path / "before.gguf", "Q4_K_M")
    origin = {
        "kind": "hub",
        "repo_id": "Somebody/Quite-Another-Model-0.2B",
        "revision": "a" * 40,
        "license": "apache-2.0",
    }
    after = build(source, tmp_path / "after.gguf", "Q4_K_M", origin=origin)
    assert keys(after)["general.name"] != keys(before)["general.name"]
    assert "general.license" in keys(after).keys() - keys(before).keys()
    start = min(tensors_at(before).values())
    assert tensors_at(after) == tensors_at(before)
    assert before.read_bytes()[start:] == after.read_bytes()[start:]


def test_what_needs_more_room_takes_it_in_whole_steps(source: Path, tmp_path: Path) -> None:
    before = build(source, tmp_path / "before.gguf", "Q8_0")
    after = build(
        with_template(source, "x" * 2 * ROOM, source.name, tmp_path / "more"),
        tmp_path / "after.gguf",
        "Q8_0",
    )
    moved = {tensors_at(after)[name] - at for name, at in tensors_at(before).items()}
    assert moved == {2 * ROOM}


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=9),
        st.one_of(st.text(max_size=99), st.integers(0, 9), st.booleans()),
        max_size=9,
    )
)
def test_the_keys_fill_the_room_to_the_byte(fields: dict[str, Any]) -> None:
    kinds = {
        str: gguf.GGUFValueType.STRING,
        int: gguf.GGUFValueType.UINT32,
        bool: gguf.GGUFValueType.BOOL,
    }
    kv = {key: gguf.GGUFValue(value, kinds[type(value)]) for key, value in fields.items()}
    kv["tokenizer.ggml.tokens"] = gguf.GGUFValue(["a", "b"], gguf.GGUFValueType.ARRAY)
    whole = {**kv, padding.KEY: gguf.GGUFValue(padding.text(kv), gguf.GGUFValueType.STRING)}
    vocabulary = len(header.pair("tokenizer.ggml.tokens", kv["tokenizer.ggml.tokens"]))
    assert sum(len(header.pair(key, value)) for key, value in whole.items()) - vocabulary == ROOM


def test_llama_cpp_reads_past_the_padding(source: Path, tmp_path: Path) -> None:
    path = build(source, tmp_path / "model" / "model.gguf", "Q8_0")
    assert keys(path)[padding.KEY].strip(" ") == "" and len(keys(path)[padding.KEY]) > ROOM // 2
    session = Session(str(path.parent), {"context": 64, "kv": "f16", "threads": 1})
    try:
        assert session.chat_template() == keys(path)["tokenizer.chat_template"]
        assert len(session.generate([5, 300, 17], 4, lambda _: None, stop=False)) == 4
    finally:
        session.close()


def test_the_patch_of_another_template_holds_little_more_than_the_template(
    source: Path, tmp_path: Path
) -> None:
    template = "".join(
        f"{{% if messages[{number}] %}}{number}{{% endif %}}" for number in range(60)
    )
    one = build(source, tmp_path / "one.gguf", "Q8_0").read_bytes()
    other = build(
        with_template(source, template, source.name, tmp_path / "new"),
        tmp_path / "other.gguf",
        "Q8_0",
    ).read_bytes()
    old = write(tmp_path / "old", {"model/model.gguf": one})
    new = write(tmp_path / "later", {"model/model.gguf": other}, version="2")
    made = delta(old, new, tmp_path / "p")
    assert len(one) > 1_000_000 and made.bytes < 2_500
    assert tree(finish(apply(made.path, old, tmp_path / "got")).path) == tree(new)
