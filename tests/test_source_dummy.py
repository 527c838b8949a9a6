"""The dummy source: true shapes, true vocabulary sizes, random weights that are the same every
time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from packager import catalog
from packager.checkpoint import Checkpoint, retrieval, template
from packager.checkpoint.byte_level_bpe import byte_alphabet, tokenizer_config, tokenizer_json
from packager.checkpoint.control_tokens import QWEN2, QWEN2_5, QWEN3, base_vocab, control_tokens
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.shape import Experts, Hybrid, Shape, tensors
from packager.shape.names import TEXT_TYPES
from packager.sources import dummy
from packager.sources.random_weights import write_weights
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.tiers import thorough

pytestmark = pytest.mark.slow

TRUE_BASE = 151_643


def fetch(
    out: Path, shape: Shape | None = None, repo_id: str = "Qwen/Qwen3-Tiny", **more: Any
) -> dict[str, Any]:
    return dummy.fetch(
        Silent(), repo_id=repo_id, shape=asdict(shape or tiny_shape()), out=str(out), **more
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


class TestTheFolder:
    def test_it_is_a_checkpoint_of_exactly_the_shape_that_was_asked_for(
        self, tmp_path: Path
    ) -> None:
        facts = fetch(tmp_path / "out")
        assert Checkpoint.open(tmp_path / "out").shape == tiny_shape()
        assert (facts["kind"], facts["repo_id"], facts["revision"], facts["license"]) == (
            "dummy",
            "Qwen/Qwen3-Tiny",
            None,
            "CC0-1.0",
        )
        assert facts["files"] == [
            {"path": path.name, "size": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted((tmp_path / "out").iterdir())
        ]

    @pytest.mark.parametrize("model_type", TEXT_TYPES)
    def test_every_text_architecture_can_be_made(self, tmp_path: Path, model_type: str) -> None:
        generation = "qwen2" if model_type.startswith("qwen2") or model_type == "qwen" else "qwen3"
        shape = replace(tiny_shape(generation, layers=4), model_type=model_type)
        if model_type == "qwen":
            shape = replace(shape, kv_heads=shape.heads, tied=False)
        if "moe" in model_type or "next" in model_type:
            shared = None if model_type in ("qwen3_moe", "qwen3_vl_moe") else 64
            shape = replace(
                shape,
                experts=Experts(
                    count=4, active=2, intermediate=64, shared_intermediate=shared, norm_topk=True
                ),
            )
        if "next" in model_type or "3_5" in model_type:
            shape = replace(
                shape,
                hybrid=Hybrid(
                    4, key_heads=2, value_heads=4, key_head_dim=16, value_head_dim=16, conv_kernel=4
                ),
            )
        fetch(tmp_path / "out", shape)
        has = Checkpoint.open(tmp_path / "out").shape
        # A mixture whose layers all have experts needs no dense width, and its config has none in
        # some generations.
        assert replace(has, intermediate=shape.intermediate) == shape

    def test_what_is_no_text_checkpoint_is_refused_before_anything_is_written(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(PackError, match="qwen3_omni_moe") as caught:
            fetch(tmp_path / "out", replace(tiny_shape(), model_type="qwen3_omni_moe"))
        assert caught.value.exit_code == ExitCode.INPUT
        assert list(tmp_path.glob("*out*")) == []

    def test_it_says_that_the_weights_are_random(self, tmp_path: Path) -> None:
        fetch(tmp_path / "out")
        assert "random numbers" in (tmp_path / "out" / "LICENSE").read_text()

    def test_two_runs_are_byte_identical_and_another_seed_differs_in_the_weights_alone(
        self, tmp_path: Path
    ) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            fetch(tmp_path / name, seed=seed)
        a, b, c = (digests(tmp_path / name) for name in "abc")
        assert a == b
        assert {name for name in a if a[name] != c[name]} == {"model.safetensors"}

    def test_a_full_disk_is_found_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dummy, "free_bytes", lambda path: 1_000_000)
        with pytest.raises(PackError, match=r"needs .* and 1.00 MB are free") as caught:
            fetch(tmp_path / "out")
        assert caught.value.exit_code == ExitCode.RESOURCE
        assert list(tmp_path.glob("*out*")) == []

    def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            fetch(tmp_path / "out")
        assert list(tmp_path.glob("*out*")) == []

    def test_the_room_it_asks_for_is_the_room_it_takes(self, tmp_path: Path) -> None:
        shape = tiny_shape(vocab=151_936)
        fetch(tmp_path / "out", shape)
        taken = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        assert shape.parameters() * 2 < taken <= dummy.bytes_needed(shape)

    def test_progress_ends_at_the_bytes_of_the_weights(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int | None]] = []

        class Keep(Silent):
            def progress(self, done: int, total: int | None, unit: str = "B") -> None:
                seen.append((done, total))

        dummy.write_checkpoint(Keep(), tmp_path, repo_id="x", shape=tiny_shape(), control=QWEN3)
        size = tiny_shape().parameters() * 2
        assert seen[-1] == (size, size)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    @pytest.mark.engine
    @pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
    def test_transformers_loads_it_without_a_missing_or_unexpected_tensor(
        self, tmp_path: Path, model_type: str
    ) -> None:
        transformers = pytest.importorskip("transformers", reason="needs transformers")
        folder = write_tiny(tmp_path / "tiny", model_type, shards=2, tied=False)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True
        )
        assert (
            not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        )
        first = 1024 - len(QWEN3 if model_type == "qwen3" else QWEN2_5)
        assert model.generation_config.eos_token_id == [first + 2, first]


class TestTheWeights:
    def test_bytes_do_not_depend_on_the_number_of_threads(self, tmp_path: Path) -> None:
        shape = tiny_shape(hidden=1024, vocab=4096)
        for threads in (1, 2, 5):
            (tmp_path / str(threads)).mkdir()
            assert (
                list(
                    write_weights(tmp_path / str(threads), tensors(shape), seed=3, threads=threads)
                )[-1]
                == shape.parameters() * 2
            )
        one, two, five = (digests(tmp_path / name) for name in ("1", "2", "5"))
        assert one == two == five

    def test_a_tensor_does_not_depend_on_the_others(self, tmp_path: Path) -> None:
        short, long = (
            Checkpoint.open(write_tiny(tmp_path / str(layers), layers=layers)) for layers in (1, 3)
        )
        name = "model.layers.0.mlp.up_proj.weight"
        assert short.raw(name) == long.raw(name)
        assert long.raw(name) != long.raw("model.layers.1.mlp.up_proj.weight")

    @pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
    def test_they_are_normal_with_the_deviation_that_training_starts_from(
        self, tmp_path: Path, dtype: str
    ) -> None:
        checkpoint = Checkpoint.open(
            write_tiny(tmp_path / "tiny", dtype=dtype, hidden=256, vocab=4096)
        )
        values = np.sort(checkpoint.array("model.embed_tokens.weight").astype(np.float64).ravel())
        assert abs(values.mean()) < 1e-4
        assert abs(values.std() / 0.02 - 1) < 0.01
        # 68.3 and 95.4 of a hundred within one and two deviations.
        within = [np.mean(np.abs(values) < 0.02 * count) for count in (1, 2)]
        assert np.allclose(within, [0.6827, 0.9545], atol=0.003)

    def test_norms_are_one_and_biases_are_not(self, tmp_path: Path) -> None:
        checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", "qwen2"))
        for name in checkpoint.tensors:
            array = checkpoint.array(name).astype(np.float32)
            assert (array == 1).all() == name.endswith("norm.weight")

    def test_rows_and_blocks_do_not_repeat(self, tmp_path: Path) -> None:
        """Blocks of 2^20 elements have streams of their own; the same stream twice would double
        rows."""
        checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", hidden=1024, vocab=4096))
        rows = checkpoint.array("model.embed_tokens.weight").view(np.uint16)
        assert len(np.unique(rows, axis=0)) == 4096

    def test_the_first_weights_of_seed_0_are_what_they_have_always_been(
        self, tmp_path: Path
    ) -> None:
        """The build cache trusts that one writer version gives one result: raise WRITER_VERSION
        when this changes."""
        checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny"))
        first = checkpoint.array("model.embed_tokens.weight").view(np.uint16)[0, :4].tolist()
        assert (dummy.WRITER_VERSION, first) == (1, [15509, 15490, 15486, 48146])

    @settings(max_examples=20)
    @given(limit=st.integers(1, 400_000))
    def test_shards_stay_below_their_limit_and_hold_every_tensor_once(
        self, tmp_path_factory: pytest.TempPathFactory, limit: int
    ) -> None:
        folder = tmp_path_factory.mktemp("shards", numbered=True)
        shape = tiny_shape(vocab=256, layers=1)
        list(write_weights(folder, tensors(shape), seed=0, max_shard_bytes=limit))
        largest = max(spec.elements for spec in tensors(shape)) * 2
        for path in folder.glob("*.safetensors"):
            header = int.from_bytes(path.read_bytes()[:8], "little")
            assert path.stat().st_size - 8 - header <= max(limit, largest)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    yield Tokenizer.from_str(tokenizer_json(TRUE_BASE, QWEN3).decode())


class TestTheTokenizer:
    def test_it_has_the_true_number_of_tokens(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.get_vocab_size(with_added_tokens=False) == TRUE_BASE
        assert tokenizer.get_vocab_size() == TRUE_BASE + 26

    @pytest.mark.parametrize(
        ("file", "control"),
        [
            thorough("Qwen2.tokenizer.json", QWEN2),
            thorough("Qwen2.5-72B-Instruct-AWQ.tokenizer.json", QWEN2_5),
            ("Qwen3.tokenizer.json", QWEN3),
        ],
    )
    def test_everything_but_the_words_is_as_in_the_genuine_tokenizer(
        self, shared: Path, file: str, control: Any
    ) -> None:
        genuine = json.loads((shared / "qwen" / "tokenizer_json" / file).read_bytes())
        ours = json.loads(tokenizer_json(TRUE_BASE, control))
        assert ours["added_tokens"] == genuine["added_tokens"]
        assert len(ours["model"].pop("vocab")) == len(genuine["model"].pop("vocab"))
        assert len(ours["model"].pop("merges")) == len(genuine["model"].pop("merges"))
        ours["model"].pop("ignore_merges")
        genuine["model"].pop("ignore_merges", None)
        assert ours == {**genuine, "added_tokens": ours["added_tokens"]}

    def test_the_bytes_have_their_genuine_ids(self, shared: Path) -> None:
        genuine = json.loads((shared / "qwen" / "qwen2" / "vocab.json").read_bytes())
        assert [genuine[char] for char in byte_alphabet()] == list(range(256))

    def test_its_configuration_has_the_genuine_keys_and_flags(self, shared: Path) -> None:
        genuine = json.loads(
            (shared / "qwen" / "tokenizer_configs" / "Qwen3.tokenizer_config.json").read_bytes()
        )
        ours = tokenizer_config(TRUE_BASE, QWEN3, 131_072)
        assert {**ours, "chat_template": ""} == {**genuine, "chat_template": ""}

    @pytest.mark.parametrize(
        ("repo_id", "model_type", "count"),
        [
            ("Qwen/Qwen1.5-0.5B", "qwen2", 3),
            ("Qwen/Qwen-1_8B-Chat", "qwen", 208),
            ("Qwen/Qwen2-0.5B-Instruct", "qwen2", 3),
            ("Qwen/Qwen2.5-Coder-7B", "qwen2", 22),
            ("Qwen/QwQ-32B", "qwen2", 26),
            ("Qwen/Qwen3-30B-A3B", "qwen3_moe", 26),
        ],
    )
    def test_each_generation_has_its_own_control_tokens(
        self, repo_id: str, model_type: str, count: int
    ) -> None:
        assert len(control_tokens(repo_id, model_type)) == count

    def test_every_text_variant_of_the_catalogue_has_room_for_its_tokens(self) -> None:
        for variant in catalog.load():
            if variant.shape and variant.shape.model_type in TEXT_TYPES:
                control = control_tokens(variant.repo_id, variant.shape.model_type)
                assert (
                    base_vocab(variant.shape.vocab, len(control)) + len(control)
                    <= variant.shape.vocab
                ), variant.repo_id

    def test_control_tokens_stand_alone_at_their_ids(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.encode("<|im_start|>\n<|im_end|><|endoftext|><think>").ids == [
            151644,
            198,
            151645,
            151643,
            151667,
        ]

    @pytest.mark.parametrize("step", [16, thorough(1)])
    def test_every_token_is_what_its_own_text_is_encoded_to(
        self, step: int, tokenizer: Tokenizer
    ) -> None:
        ids = [*range(256, TRUE_BASE, step), TRUE_BASE - 1]
        texts = tokenizer.decode_batch([[token] for token in ids])
        assert all(text.isascii() and text.isprintable() for text in texts)
        assert [encoding.ids for encoding in tokenizer.encode_batch(texts)] == [
            [token] for token in ids
        ]

    @given(text=st.text(max_size=80))
    def test_any_text_comes_back_in_its_normal_form(self, tokenizer: Tokenizer, text: str) -> None:
        import unicodedata

        assert tokenizer.decode(
            tokenizer.encode(text).ids, skip_special_tokens=False
        ) == unicodedata.normalize("NFC", text)

    @pytest.mark.parametrize("base", [255, 2_000_000])
    def test_a_vocabulary_that_cannot_be_made_is_refused(self, base: int) -> None:
        with pytest.raises(PackError, match=str(base)):
            tokenizer_json(base, QWEN3)

    @pytest.mark.engine
    def test_transformers_and_tokenizers_encode_and_render_alike(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers", reason="needs transformers")
        folder = write_tiny(tmp_path / "tiny", vocab=4096)
        theirs, ours = (
            transformers.AutoTokenizer.from_pretrained(folder),
            Tokenizer.from_file(str(folder / "tokenizer.json")),
        )
        text = "<|im_start|>user\nbanana 12 é 你好 🙂\r\n\r\n  don't<|im_end|>"
        assert theirs(text)["input_ids"] == ours.encode(text).ids
        assert theirs.eos_token == "<|im_end|>"
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi {{ 7 * 7 }}"},
        ]
        rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert rendered == template.render(Checkpoint.open(folder).chat_template or "", messages)
        assert rendered == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 "
            "}}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_random_weights_come_with_the_tokenizer_that_the_task_takes(tmp_path: Path) -> None:
    for task in ("embed", "rerank"):
        folder = write_tiny(tmp_path / task, shape=tiny_shape("qwen3").for_task(task))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if task == "rerank":
            yes, no = retrieval.answer_ids(tokenizer, "x")
            assert yes != no
        else:
            end = retrieval.conventions(Checkpoint.open(folder)).end
            assert tokenizer.decode([end], skip_special_tokens=False) == "<|endoftext|>"
