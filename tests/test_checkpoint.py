"""A checkpoint: what opens, what it says, and one bad file for every rule that it may break."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import INDEX
from packager.checkpoint.header import MAX_HEADER_BYTES, read_header
from packager.errors import ExitCode, PackError
from packager.shape import tensors
from tests.make_checkpoint import tiny_shape, write_tiny

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny", tied=False)


def refused(folder: Path, *words: str) -> PackError:
    with pytest.raises(PackError) as caught:
        Checkpoint.open(folder)
    assert caught.value.exit_code == ExitCode.INPUT
    for word in words:
        assert word in str(caught.value)
    return caught.value


def edit_json(path: Path, **changes: Any) -> None:
    """Change top-level keys; a value of None removes one."""
    value = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the header of a safetensors file, its data untouched."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def safetensors(entries: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


class TestWhatOpens:
    @pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
    @pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
    @pytest.mark.parametrize("shards", [1, 3])
    def test_shape_and_tensors_are_those_that_were_written(self, tmp_path: Path, model_type: str, tied: bool, shards: int) -> None:
        shape = tiny_shape(model_type, tied=tied)
        checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", shape=shape, shards=shards))
        assert checkpoint.shape == shape
        assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {spec.name: spec.shape for spec in tensors(shape)}
        assert len({tensor.file for tensor in checkpoint.tensors.values()}) >= shards
        assert checkpoint.weight_bytes == shape.parameters() * 2

    @pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
    def test_arrays_are_what_the_safetensors_library_reads(self, tmp_path: Path, dtype: str) -> None:
        checkpoint = Checkpoint.open(write_tiny(tmp_path / "tiny", dtype=dtype))
        with safe_open(tmp_path / "tiny" / WEIGHTS, framework="np") as library:
            for name in checkpoint.tensors:
                array = checkpoint.array(name)
                assert array.dtype == library.get_tensor(name).dtype
                assert array.shape == checkpoint.tensors[name].shape
                assert array.tobytes() == library.get_tensor(name).tobytes() == checkpoint.raw(name).tobytes()

    def test_arrays_cannot_be_written_to(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="read-only"):
            Checkpoint.open(folder).array("model.norm.weight")[0] = 2

    def test_a_released_tensor_can_be_read_again(self, folder: Path) -> None:
        checkpoint = Checkpoint.open(folder)
        before = checkpoint.raw("lm_head.weight").tobytes()
        checkpoint.release("lm_head.weight")
        assert checkpoint.raw("lm_head.weight").tobytes() == before

    def test_opening_reads_no_weights(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mmap.mmap", None)
        Checkpoint.open(folder)

    @pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "mtp.fc.weight"])
    def test_a_redundant_tensor_is_dropped(self, tmp_path: Path, name: str) -> None:
        folder = write_tiny(tmp_path / "tiny", tied=True)
        shape = [1024, 64] if name == "lm_head.weight" else [16]
        add_tensor(folder / WEIGHTS, name, shape)
        checkpoint = Checkpoint.open(folder)
        assert name not in checkpoint.tensors
        assert checkpoint.dropped == (name,)

    def test_a_vocabulary_in_two_files_is_enough(self, folder: Path) -> None:
        model = json.loads((folder / "tokenizer.json").read_bytes())["model"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
        checkpoint = Checkpoint.open(folder)
        assert checkpoint.tokenizer_json is None
        assert (checkpoint.vocab_json, checkpoint.merges_txt) == (folder / "vocab.json", folder / "merges.txt")

    def test_python_in_the_folder_is_ignored(self, folder: Path) -> None:
        (folder / "modeling_qwen.py").write_text("raise SystemExit('it was run')")
        assert "modeling_qwen.py" not in Checkpoint.open(folder).files

    def test_licences_are_found(self, folder: Path) -> None:
        (folder / "NOTICE.txt").write_text("notice")
        assert [path.name for path in Checkpoint.open(folder).licenses] == ["LICENSE", "NOTICE.txt"]

    def test_the_chat_template_comes_from_the_file_that_takes_precedence(self, folder: Path) -> None:
        edit_json(folder / "tokenizer_config.json", chat_template="from config")
        assert Checkpoint.open(folder).chat_template == "from config"
        edit_json(
            folder / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "x"}, {"name": "default", "template": "named"}]
        )
        assert Checkpoint.open(folder).chat_template == "named"
        (folder / "chat_template.json").write_text('{"chat_template": "from json"}')
        assert Checkpoint.open(folder).chat_template == "from json"
        (folder / "chat_template.jinja").write_text("from jinja")
        assert Checkpoint.open(folder).chat_template == "from jinja"

    def test_a_base_model_has_no_chat_template(self, folder: Path) -> None:
        edit_json(folder / "tokenizer_config.json", chat_template=None)
        assert Checkpoint.open(folder).chat_template is None

    def test_a_snapshot_of_the_hub_cache_is_read_through_its_links(self, tmp_path: Path) -> None:
        snapshot = hub_snapshot(tmp_path)
        assert Checkpoint.open(snapshot).shape == tiny_shape()

    def test_what_transformers_saves_opens(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers", reason="needs transformers to save with")
        model = transformers.AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path / "tiny"), dtype="float32")
        model.save_pretrained(tmp_path / "saved")
        transformers.AutoTokenizer.from_pretrained(tmp_path / "tiny").save_pretrained(tmp_path / "saved")
        saved, ours = Checkpoint.open(tmp_path / "saved"), Checkpoint.open(tmp_path / "tiny")
        assert saved.shape == ours.shape
        assert saved.chat_template == ours.chat_template
        assert np.array_equal(saved.array("model.embed_tokens.weight"), ours.array("model.embed_tokens.weight").astype(np.float32))

    @pytest.mark.parametrize("name", ["Qwen2.5-0.5B-Instruct", "Qwen3-0.6B", "Qwen2-7B-Instruct", "Qwen3-32B"])
    def test_genuine_configs_are_read(self, shared: Path, tmp_path: Path, name: str) -> None:
        folder = write_tiny(tmp_path / "tiny")
        genuine = json.loads((shared / "qwen" / "configs" / f"{name}.config.json").read_bytes())
        (folder / "config.json").write_text(json.dumps(genuine))
        # The weights are tiny, so the first tensor is what gives way: the config has passed by then.
        refused(folder, "model.embed_tokens.weight", str([genuine["vocab_size"], genuine["hidden_size"]]))


def hub_snapshot(root: Path) -> Path:
    """A tiny checkpoint in the layout of the hub's cache."""
    repo = root / "hub" / "models--Qwen--Tiny"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    blobs = write_tiny(repo / "blobs")
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def add_tensor(path: Path, name: str, shape: list[int], file_name: str | None = None) -> None:
    """Append a BF16 tensor of zeros."""
    size = math.prod(shape) * 2

    def change(header: dict[str, Any]) -> None:
        end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}

    edit_header(path, change)
    with path.open("ab") as stream:
        stream.write(bytes(size))


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
    "same name twice": (safetensors(b'{"a": %b, "a": %b}' % ((json.dumps(ONE).encode(),) * 2), bytes(4)), "'a' twice"),
    "metadata that is no text": (safetensors({"__metadata__": {"step": 1}}), "__metadata__"),
    "entry that is no object": (safetensors({"a": 7}), "not described"),
    "entry without offsets": (safetensors({"a": {"dtype": "BF16", "shape": [2]}}), "not described"),
    "unknown type": (safetensors({"a": {**ONE, "dtype": "BF17"}}, bytes(4)), "unknown type 'BF17'"),
    "type that is no text": (safetensors({"a": {**ONE, "dtype": []}}, bytes(4)), "unknown type []"),
    "quantized type": (safetensors({"a": {**ONE, "dtype": "F8_E4M3", "shape": [4]}}, bytes(4)), "already quantized"),
    "negative size": (safetensors({"a": {**ONE, "shape": [-2]}}, bytes(4)), "impossible shape"),
    "size that is true": (safetensors({"a": {**ONE, "shape": [True, 2]}}, bytes(4)), "impossible shape"),
    "size beyond 64 bits": (safetensors({"a": {**ONE, "shape": [1 << 70]}}, bytes(4)), "impossible shape"),
    "sizes that overflow": (safetensors({"a": {**ONE, "shape": [1 << 40, 1 << 40]}}, bytes(4)), "data_offsets span 4"),
    "three offsets": (safetensors({"a": {**ONE, "data_offsets": [0, 2, 4]}}, bytes(4)), "impossible data_offsets"),
    "offsets that run backwards": (safetensors({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4)), "impossible data_offsets"),
    "shape that disagrees with the offsets": (safetensors({"a": {**ONE, "shape": [3]}}, bytes(4)), "takes 6 bytes"),
    "overlap": (safetensors({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, bytes(6)), "'b' overlaps"),
    "gap": (safetensors({"a": ONE, "b": {**ONE, "data_offsets": [6, 10]}}, bytes(10)), "gap before"),
    "first tensor not at the beginning": (safetensors({"a": {**ONE, "data_offsets": [2, 6]}}, bytes(6)), "gap before"),
    "cut short": (safetensors({"a": ONE}, bytes(3)), "cut short"),
    "bytes behind the last tensor": (safetensors({"a": ONE}, bytes(5)), "belong to none"),
}


class TestTheFormat:
    @pytest.mark.parametrize(("data", "rule"), BAD_FILES.values(), ids=BAD_FILES.keys())
    def test_a_file_that_breaks_a_rule_is_refused_with_the_file_and_the_rule_named(self, tmp_path: Path, data: bytes, rule: str) -> None:
        path = tmp_path / "bad.safetensors"
        path.write_bytes(data)
        with pytest.raises(PackError) as caught:
            read_header(path)
        assert caught.value.exit_code == ExitCode.INPUT
        assert str(path) in caught.value.message
        assert rule in caught.value.message

    def test_tensors_come_in_stored_order_whatever_the_order_of_the_header(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        path.write_bytes(
            safetensors(
                {"b": {**ONE, "data_offsets": [4, 8]}, "empty": {**ONE, "shape": [0, 3], "data_offsets": [4, 4]}, "a": ONE}, bytes(8)
            )
        )
        assert [tensor.name for tensor in read_header(path)] == ["a", "empty", "b"]

    @given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda text: safetensors(b"{" + text)))
    def test_no_bytes_raise_anything_but_a_pack_error(self, tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
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
            "data_offsets": st.lists(sizes, min_size=2, max_size=2) | st.lists(sizes, max_size=3) | st.just({}),
        },
        optional={"more": st.none()},
    )
    headers = st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]), entries | st.integers() | st.dictionaries(st.text(max_size=2), st.text(max_size=2))
    )

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(header=headers, data=st.integers(0, 24).map(bytes))
    def test_what_is_accepted_here_is_accepted_by_the_safetensors_library(
        self, tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
    ) -> None:
        path = tmp_path_factory.mktemp("fuzz", numbered=True) / "x.safetensors"
        path.write_bytes(safetensors(header, data))
        try:
            ours = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in read_header(path)}
        except PackError:
            return
        with safe_open(path, framework="np") as library:
            assert ours == {name: (library.get_slice(name).get_dtype(), library.get_slice(name).get_shape()) for name in library.keys()}  # noqa: SIM118

    @given(cut=st.integers(1, 4000), flip=st.integers(0, 2500), bit=st.integers(0, 7))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_damage_to_a_real_file_is_found_or_harmless(self, tmp_path: Path, cut: int, flip: int, bit: int) -> None:
        whole = write_tiny(tmp_path / "whole") / WEIGHTS if not (tmp_path / "whole").exists() else tmp_path / "whole" / WEIGHTS
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

    def test_the_library_is_the_more_lenient_one(self, tmp_path: Path) -> None:
        """The one rule that only this reader knows: the library takes the last of two tensors with one name."""
        path = tmp_path / "x.safetensors"
        path.write_bytes(BAD_FILES["same name twice"][0])
        try:
            with safe_open(path, framework="np") as library:
                assert list(library.keys()) == ["a"]
        except SafetensorError:
            pytest.skip("this version of the library refuses it too")


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
            first, second = header["model.norm.weight"], header["model.layers.0.input_layernorm.weight"]
            first["data_offsets"] = second["data_offsets"]

        edit_header(folder / WEIGHTS, swap)
        refused(folder, str(folder / WEIGHTS), "overlaps")

    def test_a_missing_tensor(self, folder: Path) -> None:
        edit_header(folder / WEIGHTS, lambda header: {("x" if key == "model.norm.weight" else key): value for key, value in header.items()})
        refused(folder, "config.json", "'model.norm.weight' is missing", "'x' in model.safetensors is not one of its own")

    def test_an_additional_tensor(self, folder: Path) -> None:
        add_tensor(folder / WEIGHTS, "model.layers.0.lora_A", [4])
        refused(folder, "'model.layers.0.lora_A' in model.safetensors is not one of its own")

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
            ("tie_word_embeddings", True, ""),
        ],
    )
    def test_a_config_that_disagrees_with_the_tensors(self, folder: Path, key: str, value: Any, tensor: str) -> None:
        edit_json(folder / "config.json", **{key: value})
        if key == "tie_word_embeddings":
            assert Checkpoint.open(folder).dropped == ("lm_head.weight",)
        else:
            refused(folder, "config.json", tensor)

    def test_many_disagreements_are_counted_instead_of_listed(self, folder: Path) -> None:
        edit_json(folder / "config.json", num_hidden_layers=40)
        assert "and 415 more" in refused(folder).message

    @pytest.mark.parametrize("value", [-1, 0, "64", 64.5, True, None, 1 << 40], ids=repr)
    def test_a_config_whose_sizes_are_no_sizes(self, folder: Path, value: Any) -> None:
        edit_json(folder / "config.json", hidden_size=value)
        refused(folder, "config.json", "hidden_size")

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 100_000], ids=["empty", "cut", "list", "binary", "deep"])
    def test_damaged_json(self, folder: Path, name: str, text: bytes) -> None:
        (folder / name).write_bytes(text)
        refused(folder, str(folder / name))

    def test_a_missing_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        refused(folder, "has no config.json")
        (folder / "adapter_config.json").write_text("{}")
        refused(folder, "Merge the adapter")

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

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.pkl", "model.ckpt"])
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
        edit_json(folder / name, auto_map={"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"}, model_type="qwen")
        refused(folder, name, "auto_map", "never run")

    @pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
    def test_a_quantized_checkpoint(self, folder: Path, method: str) -> None:
        edit_json(folder / "config.json", quantization_config={"quant_method": method})
        refused(folder, "config.json", method, "unquantized")

    @pytest.mark.parametrize("model_type", ["llama", "qwen", "qwen2_vl", None, 7], ids=repr)
    def test_an_unsupported_architecture(self, folder: Path, model_type: Any) -> None:
        edit_json(folder / "config.json", model_type=model_type)
        refused(folder, "config.json", f"model_type {model_type!r}", "qwen3_moe")

    @pytest.mark.parametrize("template", [7, {"a": 1}, [{"name": "default", "template": 1}]], ids=repr)
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

    @pytest.mark.parametrize("where", ["../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "config.json", ""])
    def test_a_shard_outside_of_the_folder_is_refused(self, sharded: Path, where: str) -> None:
        self.index(sharded, lambda weight_map: weight_map.update({"model.norm.weight": where}))
        refused(sharded, INDEX, repr(where))

    def test_a_tensor_that_its_shard_lacks_is_named(self, sharded: Path) -> None:
        self.index(sharded, lambda weight_map: weight_map.update({"extra": self.first(sharded)}))
        refused(sharded, self.first(sharded), "'extra'")

    def test_a_tensor_in_a_shard_that_the_index_does_not_name_for_it_is_named(self, sharded: Path) -> None:
        self.index(sharded, lambda weight_map: weight_map.update({"model.norm.weight": self.first(sharded)}))
        refused(sharded, "'model.norm.weight'", INDEX)

    def test_a_tensor_that_the_index_does_not_know_is_named(self, sharded: Path) -> None:
        self.index(sharded, lambda weight_map: weight_map.pop("model.norm.weight"))
        refused(sharded, "'model.norm.weight'", "does not name it")

    @pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}], ids=repr)
    def test_an_index_without_a_map_is_refused(self, sharded: Path, weight_map: Any) -> None:
        (sharded / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        refused(sharded, INDEX, "weight_map")

    def test_weights_in_one_file_and_in_shards_are_ambiguous(self, sharded: Path) -> None:
        (sharded / WEIGHTS).write_bytes(b"")
        refused(sharded, WEIGHTS, INDEX)


class TestLinks:
    @pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "LICENSE"])
    def test_a_link_out_of_the_folder_is_refused(self, folder: Path, tmp_path: Path, name: str) -> None:
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
