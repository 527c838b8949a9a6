"""The vocabulary in GGUF: token types, merges, pre-tokenizer, special ids; tokens are the same as
the tokenizers library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from targets.gguf.tiktoken import FILE, SPECIAL, byte_letters, halves, read_tiktoken
from targets.gguf.tokenizer import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    read_vocabulary,
    renamed,
)
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def definition(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of six tokens."""
    return {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": QWEN2},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        },
        "post_processor": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        "added_tokens": [
            {"id": 3, "content": "<|im_start|>", "special": True},
            {"id": 4, "content": "<|im_end|>", "special": True},
            {"id": 6, "content": "<think>", "special": False},
        ],
        **changes,
    }


def write(folder: Path, value: Any) -> Path:
    (folder / "tokenizer.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_types_say_what_is_control_what_the_user_defined_and_what_is_padding(
    tmp_path: Path,
) -> None:
    found = read_vocabulary(write(tmp_path, definition()), {"vocab_size": 8}, {})
    assert found.tokens == [
        "a",
        "b",
        "ab",
        "<|im_start|>",
        "<|im_end|>",
        "[PAD5]",
        "<think>",
        "[PAD7]",
    ]
    assert found.types == [NORMAL, NORMAL, NORMAL, CONTROL, CONTROL, UNUSED, USER_DEFINED, UNUSED]
    assert found.merges == ["a b"]
    assert found.pre == "qwen2"
    assert found.add == {"bos": False, "eos": False}
    assert found.end_of_turn == 4


def test_a_token_that_looks_like_control_is_control_whatever_the_file_says(tmp_path: Path) -> None:
    added = [{"id": 3, "content": "<|fim_prefix|>", "special": False}]
    found = read_vocabulary(write(tmp_path, definition(added_tokens=added)), {"vocab_size": 4}, {})
    assert found.types[3] == CONTROL


def test_merges_of_the_older_form_are_the_same(tmp_path: Path) -> None:
    older = definition(model={"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})
    assert read_vocabulary(write(tmp_path, older), {"vocab_size": 8}, {}).merges == ["a b"]


def test_the_two_files_of_older_tokenizers_give_the_same_vocabulary(tmp_path: Path) -> None:
    """The published Qwen3-ASR has no tokenizer.json."""
    whole = definition()
    listed = {"added_tokens_decoder": {str(row["id"]): row for row in whole["added_tokens"]}}
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (tmp_path / "merges.txt").write_bytes(b"#version: 0.2\r\na b\r\n")
    of_two = read_vocabulary(tmp_path, {"vocab_size": 8}, listed)
    assert of_two == read_vocabulary(write(tmp_path, whole), {"vocab_size": 8}, listed)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b ab\n")
    with pytest.raises(PackError, match=r"merges\.txt has a line that is not two tokens") as caught:
        read_vocabulary(tmp_path, {"vocab_size": 8}, listed)
    assert caught.value.exit_code == ExitCode.INPUT


def test_the_tokenizer_configuration_comes_before_the_model_configuration(tmp_path: Path) -> None:
    config = {"vocab_size": 8, "eos_token_id": 3, "bos_token_id": 3, "pad_token_id": None}
    found = read_vocabulary(
        write(tmp_path, definition()),
        config,
        {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|im_start|>"},
    )
    assert found.special == {"eos": 4, "pad": 3, "bos": 3}


def test_tokens_that_only_the_tokenizer_configuration_knows_are_kept(tmp_path: Path) -> None:
    more = {"added_tokens_decoder": {"5": {"content": "<my_tool>", "special": False}}}
    found = read_vocabulary(write(tmp_path, definition()), {"vocab_size": 8}, more)
    assert (found.tokens[5], found.types[5]) == ("<my_tool>", USER_DEFINED)


def test_an_expression_with_marks_is_the_one_of_qwen35(tmp_path: Path) -> None:
    marks = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
        r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"
    )
    changed = json.loads(json.dumps(definition()).replace(json.dumps(QWEN2), json.dumps(marks)))
    assert read_vocabulary(write(tmp_path, changed), {"vocab_size": 8}, {}).pre == "qwen35"


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": QWEN2}}},
        {"pre_tokenizer": None},
    ],
)
def test_a_tokenizer_that_splits_otherwise_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PackError, match="splits text in a way") as caught:
        read_vocabulary(write(tmp_path, definition(**changes)), {"vocab_size": 8}, {})
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"model": {}}',
        '{"model": {"vocab": [], "merges": []}}',
        '{"model": null}',
    ],
)
def test_a_broken_tokenizer_is_refused_with_the_file_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"tokenizer\.json") as caught:
        read_vocabulary(write(tmp_path, text), {"vocab_size": 8}, {})
    assert caught.value.exit_code == ExitCode.INPUT


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="token id 6, but the embedding has only 6 rows"):
        read_vocabulary(write(tmp_path, definition()), {"vocab_size": 6}, {})


def test_a_token_is_halved_where_byte_pair_encoding_joined_it_last() -> None:
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"bc": 4, b"abc": 5}
    assert halves(ranks, b"abc", 5) == (b"ab", b"c")
    with pytest.raises(PackError, match="rank 9"):
        halves(ranks, b"cba", 9)


def test_every_byte_has_a_letter_of_its_own() -> None:
    letters = byte_letters()
    assert sorted(letters) == list(range(256))
    assert len(set(letters.values())) == 256
    assert (letters[ord(" ")], letters[ord("\n")], letters[ord("A")]) == ("Ġ", "Ċ", "A")


def test_the_first_generation_has_the_vocabulary_and_merges_of_the_second(shared: Path) -> None:
    found = read_tiktoken(shared / "qwen" / "qwen1" / FILE, 151936)
    later = json.loads((shared / "qwen" / "tokenizer_json" / "Qwen2.tokenizer.json").read_bytes())[
        "model"
    ]
    assert {token: number for number, token in enumerate(found.tokens[:151643])} == later["vocab"]
    assert found.merges == [
        merge if isinstance(merge, str) else " ".join(merge) for merge in later["merges"]
    ]
    assert found.tokens[151643 : 151643 + len(SPECIAL)] == list(SPECIAL)
    assert found.end_of_turn == found.tokens.index("<|im_end|>")


CORPUS = [
    "Hello, world! It's 3.14159 o'clock; we'll see.",
    "def f(x):\n\treturn {k: v for k, v in x.items()}  # 100%\r\n\r\n",
    "我想在apple工作1314151天～，价格是￥1,234.56。",
    "😀😃👨‍👩‍👧‍👦🇨🇳 emoji\u200d and \u00e9 and e\u0301",
    "مرحبا بالعالم — Здравствуй, мир — こんにちは世界 — नमस्ते",
    "   leading,  double  and trailing   ",
    "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "\x00\x01\x7f control bytes",
]


@pytest.fixture(
    scope="module", params=[thorough("Qwen2"), thorough("Qwen2.5-72B-Instruct-AWQ"), "Qwen3"]
)
def genuine(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A session over tiny weights with a genuine vocabulary, and the tokenizers library's own view
    of it."""
    import tokenizers

    from packager.shape import Shape
    from targets.llama_cpp.session import Session

    folder = tmp_path_factory.mktemp("genuine")
    shape = Shape("qwen2", 32, 1, 1, 1, 32, 32, 151936, True, True, False, 512)
    source = checkpoint(folder / "ck", shape)
    origin = shared / "qwen" / "tokenizer_json" / f"{request.param}.tokenizer.json"
    shutil.copyfile(origin, source / "tokenizer.json")
    (source / "tokenizer_config.json").unlink()
    session = Session(
        str(build(source, folder / "model.gguf", "BF16")),
        {"context": 256, "kv": "f16", "threads": 1},
    )
    yield session, tokenizers.Tokenizer.from_file(str(origin))
    session.close()


@pytest.mark.engine
def test_the_genuine_vocabulary_gives_the_published_tokens(genuine: Any, shared: Path) -> None:
    session, _ = genuine
    folder = shared / "qwen" / "llama.cpp"
    texts = (
        (folder / "ggml-vocab-qwen2.gguf.inp")
        .read_bytes()
        .decode()
        .split("\n__ggml_vocab_test__\n")
    )
    expected = [
        [int(number) for number in line.split()]
        for line in (folder / "ggml-vocab-qwen2.gguf.out").read_text().split("\n")
    ]
    pairs = [(text, ids) for text, ids in zip(texts, expected, strict=False) if text]
    assert len(pairs) >= 40
    for text, ids in pairs:
        assert session.encode(text) == ids, repr(text)


@pytest.mark.engine
@pytest.mark.parametrize("text", CORPUS)
def test_the_genuine_vocabulary_gives_the_tokens_of_the_tokenizers_library(
    genuine: Any, text: str
) -> None:
    import unicodedata

    session, reference = genuine
    # The tokenizer normalises to NFC first, which llama.cpp leaves to the caller.
    normal = unicodedata.normalize("NFC", text)
    assert session.encode(normal) == reference.encode(normal, add_special_tokens=False).ids
    assert session.decode(session.encode(normal)) == normal


@pytest.mark.engine
def test_broken_utf_8_becomes_tokens_and_comes_back_marked(genuine: Any) -> None:
    session, _ = genuine
    ids = session.encode("a\ud800b")
    assert ids
    assert session.decode(ids).startswith("a")


@pytest.mark.engine
def test_a_vocabulary_of_the_first_generation_is_read_without_running_its_python(
    shared: Path, tmp_path: Path
) -> None:
    from packager.shape import Shape
    from targets.llama_cpp.session import Session
    from tests.support.make_checkpoint import write_tiny

    shape = Shape("qwen", 32, 1, 1, 1, 32, 32, 151936, False, True, False, 512)
    source = write_tiny(tmp_path / "ck", shape=shape)
    (source / "tokenizer_config.json").unlink()
    shutil.copyfile(shared / "qwen" / "qwen1" / FILE, source / FILE)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}})
    )
    session = Session(
        str(build(source, tmp_path / "m.gguf", "Q8_0")), {"context": 256, "kv": "f16", "threads": 1}
    )
    assert session.decode(session.encode(CORPUS[2])) == CORPUS[2]
    assert len(session.generate(session.encode("你好"), 3, lambda _: None, stop=False)) == 3
    session.close()


@pytest.mark.engine
def test_the_chat_template_is_the_checkpoints_own(tmp_path: Path) -> None:
    from packager.checkpoint import Checkpoint
    from tests.support.gguf_checkpoints import keys

    source = checkpoint(tmp_path / "ck", SHAPES["qwen3"])
    template = Checkpoint.open(source).chat_template
    assert template
    assert keys(build(source, tmp_path / "m.gguf", "BF16"))["tokenizer.chat_template"] == template


def test_a_token_gets_another_name_at_its_id_unless_another_one_has_that() -> None:
    plain = Vocabulary(["a", "<|old|>", "b"], [NORMAL, CONTROL, NORMAL], [], "qwen2")
    assert renamed(plain, {"<|old|>": "<|new|>"}).tokens == ["a", "<|new|>", "b"]
    assert renamed(plain, {"<|old|>": "b"}) == renamed(plain, {}) == plain
