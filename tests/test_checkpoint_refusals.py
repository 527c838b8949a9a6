"""What is refused, each with the file named and exit code 6: damage, danger, and what is not
supported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import INDEX
from packager.errors import ExitCode, PackError
from tests.support.damage import WEIGHTS, add_tensor, edit_header, edit_json, hub_snapshot, refused
from tests.support.make_checkpoint import write_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny", tied=False)


class TestWhatIsRefused:
    def test_truncated_weights(self, folder: Path) -> None:
        path = folder / WEIGHTS
        os.truncate(path, path.stat().st_size - 1)
        refused(folder, str(path), "cut short")

    def test_a_truncated_header(self, folder: Path) -> None:
        os.truncate(folder / WEIGHTS, 100)
        refused(folder, str(folder / WEIGHTS), "ends inside its header")

    def test_offsets_that_lie(self, folder: Path) -> None:
        def swap(header: dict[str, Any]) -> None:
            first, second = (
                header["model.norm.weight"],
                header["model.layers.0.input_layernorm.weight"],
            )
            first["data_offsets"] = second["data_offsets"]

        edit_header(folder / WEIGHTS, swap)
        refused(folder, str(folder / WEIGHTS), "overlaps")

    def test_a_missing_tensor(self, folder: Path) -> None:
        edit_header(
            folder / WEIGHTS,
            lambda header: {
                ("x" if key == "model.norm.weight" else key): value for key, value in header.items()
            },
        )
        refused(
            folder,
            "config.json",
            "'model.norm.weight' is missing",
            "'x' in model.safetensors is not part of the model",
        )

    def test_an_additional_tensor(self, folder: Path) -> None:
        add_tensor(folder / WEIGHTS, "model.layers.0.lora_A", [4])
        refused(folder, "'model.layers.0.lora_A' in model.safetensors is part of an adapter")

    def test_a_tied_output_matrix_of_another_size(self, tmp_path: Path) -> None:
        folder = write_tiny(tmp_path / "tied")
        add_tensor(folder / WEIGHTS, "lm_head.weight", [4, 64])
        refused(folder, "'lm_head.weight'")

    @pytest.mark.parametrize(
        ("key", "value", "tensor"),
        [
            ("hidden_size", 32, "model.embed_tokens.weight"),
            ("vocab_size", 2048, "model.embed_tokens.weight"),
            ("num_hidden_layers", 3, "model.layers.2.input_layernorm.weight"),
            ("num_hidden_layers", 1, "model.layers.1.input_layernorm.weight"),
            ("intermediate_size", 64, "model.layers.0.mlp.gate_proj.weight"),
            ("num_key_value_heads", 2, "model.layers.0.self_attn.k_proj.weight"),
            ("head_dim", 64, "model.layers.0.self_attn.q_proj.weight"),
        ],
    )
    def test_a_config_that_disagrees_with_the_tensors(
        self, folder: Path, key: str, value: Any, tensor: str
    ) -> None:
        edit_json(folder / "config.json", **{key: value})
        refused(folder, "config.json", tensor)

    def test_many_disagreements_are_counted_instead_of_listed(self, folder: Path) -> None:
        edit_json(folder / "config.json", num_hidden_layers=40)
        assert "and 415 more" in refused(folder).message

    @pytest.mark.parametrize("value", [-1, 0, "64", 64.5, True, None, 1 << 40], ids=repr)
    def test_a_config_whose_sizes_are_no_sizes(self, folder: Path, value: Any) -> None:
        edit_json(folder / "config.json", hidden_size=value)
        refused(folder, "config.json", "hidden_size")

    @pytest.mark.parametrize(
        "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    )
    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 100_000],
        ids=["empty", "cut", "list", "binary", "deep"],
    )
    def test_damaged_json(self, folder: Path, name: str, text: bytes) -> None:
        (folder / name).write_bytes(text)
        refused(folder, str(folder / name))

    def test_a_missing_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        refused(folder, "has no config.json")
        (folder / "adapter_config.json").write_text("{}")
        refused(folder, "it holds an adapter")

    def test_a_missing_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        refused(folder, str(folder), "has no tokenizer")
        (folder / "vocab.json").write_text('{"a": 0}')
        refused(folder, "has no tokenizer")
        (folder / "merges.txt").write_text("#version: 0.2\n")
        refused(folder, "merges.txt", "no merges")

    def test_a_tokenizer_larger_than_the_embedding(self, folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
        tokenizer["added_tokens"][-1]["id"] = 1024
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        refused(folder, "tokenizer.json", "token id 1024", "1024 rows")

    def test_a_tokenizer_without_a_vocabulary(self, folder: Path) -> None:
        edit_json(folder / "tokenizer.json", model={"type": "BPE"})
        refused(folder, "tokenizer.json", "no vocabulary")

    @pytest.mark.parametrize(
        "name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.pkl", "model.ckpt"]
    )
    def test_pickled_weights(self, folder: Path, name: str) -> None:
        (folder / WEIGHTS).rename(folder / name)
        refused(folder, name, "can run any code")

    def test_a_pickle_beside_safetensors_is_ignored(self, folder: Path) -> None:
        (folder / "training_args.bin").write_bytes(b"\x80\x04.")
        assert "training_args.bin" not in Checkpoint.open(folder).files

    def test_no_weights_at_all(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        refused(folder, "holds no model.safetensors")
        (folder / "qwen.gguf").write_bytes(b"GGUF")
        refused(folder, "GGUF", "converted already")

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
    def test_a_checkpoint_that_needs_python_of_its_own(self, folder: Path, name: str) -> None:
        edit_json(
            folder / name,
            auto_map={"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
            model_type="qwen3",
        )
        refused(folder, name, "auto_map", "never run")

    @pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
    def test_a_quantized_checkpoint(self, folder: Path, method: str) -> None:
        edit_json(folder / "config.json", quantization_config={"quant_method": method})
        add_tensor(folder / WEIGHTS, "model.layers.0.self_attn.q_proj.scales", [4])
        refused(folder, "config.json", method, "unquantized")

    @pytest.mark.parametrize("model_type", ["llama", "qwen3_omni_moe", None, 7], ids=repr)
    def test_an_unsupported_architecture(self, folder: Path, model_type: Any) -> None:
        edit_json(folder / "config.json", model_type=model_type)
        refused(folder, "config.json", f"model_type {model_type!r}", "qwen3_moe")

    @pytest.mark.parametrize(
        "template", [7, {"a": 1}, [{"name": "default", "template": 1}]], ids=repr
    )
    def test_a_chat_template_that_is_no_text(self, folder: Path, template: Any) -> None:
        edit_json(folder / "tokenizer_config.json", chat_template=template)
        refused(folder, "tokenizer_config.json", "chat_template")

    def test_a_folder_that_is_not_there_or_a_file_is_a_usage_error(self, folder: Path) -> None:
        for path, word in ((folder / "no", "no folder"), (folder / "config.json", "is a file")):
            with pytest.raises(PackError, match=word) as caught:
                Checkpoint.open(path)
            assert caught.value.exit_code == ExitCode.USAGE


class TestShards:
    @pytest.fixture
    def sharded(self, tmp_path: Path) -> Path:
        return write_tiny(tmp_path / "sharded", shards=3)

    def index(self, folder: Path, change: Callable[[dict[str, str]], Any]) -> None:
        value = json.loads((folder / INDEX).read_bytes())
        change(value["weight_map"])
        (folder / INDEX).write_text(json.dumps(value))

    def first(self, folder: Path) -> str:
        return min(path.name for path in folder.glob("model-*.safetensors"))

    def test_a_missing_shard_is_named(self, sharded: Path) -> None:
        name = self.first(sharded)
        (sharded / name).unlink()
        refused(sharded, str(sharded / name), "is missing")

    def test_a_missing_index_is_named(self, sharded: Path) -> None:
        (sharded / INDEX).unlink()
        refused(sharded, f"no {INDEX}")

    @pytest.mark.parametrize(
        "where",
        [
            "../model.safetensors",
            "/etc/model.safetensors",
            "sub/model.safetensors",
            "config.json",
            "",
        ],
    )
    def test_a_shard_outside_of_the_folder_is_refused(self, sharded: Path, where: str) -> None:
        self.index(sharded, lambda weight_map: weight_map.update({"model.norm.weight": where}))
        refused(sharded, INDEX, repr(where))

    def test_the_shards_say_which_tensors_there_are_and_the_index_says_which_shards(
        self, sharded: Path
    ) -> None:
        whole = Checkpoint.open(sharded).tensors
        self.index(sharded, lambda weight_map: weight_map.update({"extra": self.first(sharded)}))
        self.index(
            sharded,
            lambda weight_map: weight_map.update({"model.norm.weight": self.first(sharded)}),
        )
        self.index(
            sharded, lambda weight_map: weight_map.pop("model.layers.0.input_layernorm.weight")
        )
        assert Checkpoint.open(sharded).tensors == whole

    def test_a_tensor_in_two_shards_is_named(self, sharded: Path) -> None:
        add_tensor(sharded / self.first(sharded), "model.norm.weight", [64])
        refused(sharded, "both hold tensor 'model.norm.weight'")

    @pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}], ids=repr)
    def test_an_index_without_a_map_is_refused(self, sharded: Path, weight_map: Any) -> None:
        (sharded / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        refused(sharded, INDEX, "weight_map")

    def test_weights_in_one_file_and_in_shards_are_ambiguous(self, sharded: Path) -> None:
        (sharded / WEIGHTS).write_bytes(b"")
        refused(sharded, WEIGHTS, INDEX)


class TestLinks:
    @pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "LICENSE"])
    def test_a_link_out_of_the_folder_is_refused(
        self, folder: Path, tmp_path: Path, name: str
    ) -> None:
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")
        refused(folder, str(folder / name), "link")

    def test_a_snapshot_link_out_of_its_repository_is_refused(self, tmp_path: Path) -> None:
        snapshot = hub_snapshot(tmp_path)
        outside = tmp_path / "hub" / "models--Other--Model" / "blobs"
        outside.mkdir(parents=True)
        (snapshot / "config.json").resolve().rename(outside / "config")
        (snapshot / "config.json").unlink()
        (snapshot / "config.json").symlink_to(outside / "config")
        refused(snapshot, "config.json", "link out of its folder")

    def test_a_link_to_nothing_or_to_itself_is_refused(self, folder: Path) -> None:
        for target in ("gone", "NOTICE"):
            (folder / "NOTICE").symlink_to(target)
            refused(folder, "NOTICE", "link to nothing")
            (folder / "NOTICE").unlink()

    def test_what_is_no_regular_file_is_refused(self, folder: Path) -> None:
        os.mkfifo(folder / "NOTICE")
        refused(folder, "NOTICE", "not a regular file")
