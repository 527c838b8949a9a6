"""A first-generation checkpoint in Qwen2 form says the same, token for token, and needs no Python
of its own."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from packager import catalog
from packager.checkpoint import Checkpoint, template
from packager.checkpoint.rewrite import rewrite
from packager.checkpoint.tiktoken import SPECIAL, read_ranks
from packager.errors import ExitCode, PackError
from packager.reference import Reference
from packager.shape import Shape, as_qwen2
from targets import registry
from tests.support.make_checkpoint import Silent, write_tiny

pytestmark = pytest.mark.slow

SHAPE = Shape("qwen", 64, 2, 2, 2, 32, 128, 1024, False, True, False, 2048, 10_000.0)
IDS = np.random.default_rng(3).integers(0, SHAPE.vocab, 90)
TEXTS = [
    "Hello, world! It's 3.14159 o'clock; we'll see.",
    "def f(x):\n\treturn {k: v}  # 100%\r\n\r\n",
    "我想在apple工作1314151天～，价格是￥1,234.56。",
    "😀👨‍👩‍👧‍👦 e\u0301 and \u00e9",
    "   leading,  double  and trailing   ",
    "banana bababa cidado",
]


@pytest.fixture(params=["BF16", "F32"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    """With weights so large that a swapped pair of matrices is not overlooked."""
    folder = write_tiny(tmp_path / "original", shape=SHAPE, dtype=request.param)
    file, random = folder / "model.safetensors", np.random.default_rng(1)
    tensors = {
        name: value + random.normal(0, 0.2, value.shape).astype(value.dtype)
        if value.ndim == 1
        else value * value.dtype.type(6)
        for name, value in load_file(file).items()
    }
    save_file(tensors, file, {"format": "pt"})
    return Checkpoint.open(folder)


def logits(checkpoint: Checkpoint) -> np.ndarray[Any, Any]:
    return Reference.compute(checkpoint, [IDS], Silent()).logits(0)


def plain_bpe(ranks: dict[bytes, int], text: bytes) -> list[int]:
    """Byte-pair encoding by rank, as its definition has it: of all neighbours the pair of the
    lowest rank is joined, until none has one."""
    parts = [text[place : place + 1] for place in range(len(text))]
    while pairs := [
        (ranks[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in ranks
    ]:
        place = min(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [ranks[part] for part in parts]


def test_its_logits_are_those_of_the_original(original: Checkpoint, tmp_path: Path) -> None:
    new = rewrite(Silent(), original, tmp_path / "new")
    assert new.shape == as_qwen2(SHAPE) and new.shape.model_type == "qwen2"
    before, after = logits(original), logits(new)
    assert np.abs(before).max() > 1
    assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()


@pytest.mark.engine
def test_transformers_loads_it_without_remote_code_and_computes_what_the_reference_says_of_the_original(
    original: Checkpoint, tmp_path: Path
) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="needs transformers, which comes with the openvino and onnx extras"
    )
    torch = pytest.importorskip("torch")
    rewrite(Silent(), original, tmp_path / "new")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", dtype=torch.float32, trust_remote_code=False
    )
    with torch.no_grad():
        theirs = model(torch.tensor(IDS[None])).logits[0].numpy()
    assert np.abs(logits(original) - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_its_tokenizer_splits_and_joins_as_the_tiktoken_file_says(
    original: Checkpoint, tmp_path: Path
) -> None:
    rewrite(Silent(), original, tmp_path / "new")
    tokenizer = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    assert original.tiktoken is not None
    ranks = read_ranks(original.tiktoken)
    for text in TEXTS:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        normal = tokenizer.normalizer.normalize_str(text)
        expected = [
            token
            for _, (start, end) in words
            for token in plain_bpe(ranks, normal[start:end].encode())
        ]
        assert tokenizer.encode(text).ids == expected, text
    assert tokenizer.encode("".join(SPECIAL)).ids == list(
        range(len(ranks), len(ranks) + len(SPECIAL))
    )


@pytest.mark.thorough("test_its_tokenizer_splits_and_joins_as_the_tiktoken_file_says")
def test_the_genuine_vocabulary_becomes_the_one_that_the_second_generation_publishes(
    shared: Path, tmp_path: Path
) -> None:
    folder = write_tiny(
        tmp_path / "original",
        shape=Shape("qwen", 32, 1, 1, 1, 32, 32, 151_936, False, True, False, 512),
    )
    (folder / "qwen.tiktoken").write_bytes(
        (shared / "qwen" / "qwen1" / "qwen.tiktoken").read_bytes()
    )
    rewrite(Silent(), Checkpoint.open(folder), tmp_path / "new")
    ours = json.loads((tmp_path / "new" / "tokenizer.json").read_bytes())
    theirs = json.loads((shared / "qwen" / "tokenizer_json" / "Qwen2.tokenizer.json").read_bytes())
    assert ours["model"]["vocab"] == theirs["model"]["vocab"]
    pairs = [
        tuple(merge) if isinstance(merge, list) else tuple(merge.split(" "))
        for merge in theirs["model"]["merges"]
    ]
    assert [tuple(merge) for merge in ours["model"]["merges"]] == pairs
    one, other = (Tokenizer.from_str(json.dumps(definition)) for definition in (ours, theirs))
    for text in (*TEXTS, "<|im_start|>user\nHi<|im_end|>\n"):
        assert one.encode(text).ids == other.encode(text).ids, text


def test_it_chats_and_ends_its_turn_as_the_original(original: Checkpoint, tmp_path: Path) -> None:
    new = rewrite(Silent(), original, tmp_path / "new")
    messages = [{"role": "user", "content": "Hi"}]
    assert template.render(new.chat_template or "", messages) == template.render(
        original.chat_template or "", messages
    )
    end = len(base64_lines(original)) + SPECIAL.index("<|im_end|>")
    assert new.config["eos_token_id"] == end and new.generation_config["eos_token_id"][0] == end


def base64_lines(checkpoint: Checkpoint) -> list[bytes]:
    assert checkpoint.tiktoken is not None
    return [
        base64.b64decode(line.split()[0]) for line in checkpoint.tiktoken.read_bytes().splitlines()
    ]


def test_its_context_ends_where_the_original_changes_its_frequencies(
    original: Checkpoint, tmp_path: Path
) -> None:
    path = original.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seq_length": 512}))
    assert (
        rewrite(Silent(), Checkpoint.open(original.folder), tmp_path / "new").shape.context == 512
    )


def test_nothing_but_the_first_generation_is_rewritten(tmp_path: Path) -> None:
    with pytest.raises(PackError) as failure:
        rewrite(Silent(), Checkpoint.open(write_tiny(tmp_path / "qwen3")), tmp_path / "new")
    assert failure.value.exit_code == ExitCode.USAGE and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_engines_that_know_only_the_new_form_plan_it_as_that(name: str) -> None:
    runtime, new = registry.runtime(name), as_qwen2(SHAPE)
    for recipe in runtime.recipes():
        assert runtime.obstacle(SHAPE, recipe) == runtime.obstacle(new, recipe)
        assert runtime.tools(SHAPE, recipe) == runtime.tools(new, recipe)
        assert runtime.artifact_bytes(SHAPE, recipe) == runtime.artifact_bytes(new, recipe)
        assert runtime.decode_bytes(SHAPE, recipe, 100) == runtime.decode_bytes(new, recipe, 100)
        assert runtime.footprint(SHAPE, recipe, 100) == runtime.footprint(new, recipe, 100)
        before, after = runtime.build_needs(SHAPE, recipe), runtime.build_needs(new, recipe)
        # ONNX Runtime's disk holds a copy of any checkpoint, which is then this one.
        assert before.memory == after.memory and before.disk - after.disk == (
            2 * SHAPE.parameters() if name == "openvino" else 0
        )


def test_every_published_text_model_of_the_generation_is_built_by_every_engine() -> None:
    published = [
        variant
        for variant in catalog.load()
        if variant.shape and variant.shape.model_type == "qwen" and variant.unbuildable is None
    ]
    assert {"Qwen/Qwen-1_8B-Chat", "Qwen/Qwen-72B"} <= {variant.repo_id for variant in published}
    for shape in {variant.shape for variant in published if variant.shape}:
        for runtime in registry.runtimes():
            assert any(runtime.obstacle(shape, recipe) is None for recipe in runtime.recipes()), (
                shape,
                runtime.name,
            )


def test_two_rewritings_are_the_same_to_the_byte(original: Checkpoint, tmp_path: Path) -> None:
    rewrite(Silent(), original, tmp_path / "one")
    rewrite(Silent(), original, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        for name in names
    )
