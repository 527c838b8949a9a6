"""Vision towers in a checkpoint: read under every spelling of their names, counted exactly, and
refused with the true reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.shape import Shape, Tower
from packager.shape.tower import tower_of, vision_config
from tests.support.damage import WEIGHTS, edit_header
from tests.support.vision import SHAPES, as_saved, write_seeing

EVERY = sorted(SHAPES)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(PackError) as caught:
        Checkpoint.open(folder).vision()
    assert caught.value.exit_code == ExitCode.INPUT
    for word in words:
        assert word in str(caught.value), str(caught.value)


class TestWhatIsRead:
    @pytest.mark.parametrize("model_type", EVERY)
    def test_a_tower_is_the_same_under_the_hubs_names_and_where_transformers_saved_it(
        self, tmp_path: Path, model_type: str
    ) -> None:
        folder = write_seeing(tmp_path / "hub", model_type)
        hub = Checkpoint.open(folder)
        bytes_of = {name: info.offset for name, info in hub.vision().tensors.items()}
        saved = Checkpoint.open(as_saved(folder, model_type))
        shape = SHAPES[model_type]
        assert hub.vision().tower == saved.vision().tower == shape.vision
        assert [*saved.vision().tensors] == [name for name, _ in shape.vision.tensors()]  # type: ignore[union-attr]
        shift = {saved.vision().tensors[name].offset - at for name, at in bytes_of.items()}
        # The header alone has another length.
        assert len(shift) == 1
        assert hub.shape == saved.shape == shape.decoder
        assert len(saved.dropped) == len(bytes_of)

    def test_a_decoder_one_level_deeper_is_the_same_decoder(self, tmp_path: Path) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_vl")
        names = [*Checkpoint.open(folder).tensors]

        def deeper(header: dict[str, Any]) -> dict[str, Any]:
            body = "model.language_model."
            return {
                re.sub(r"^model\.(?!visual)", body, name): value for name, value in header.items()
            }

        edit_header(folder / WEIGHTS, deeper)
        assert [*Checkpoint.open(folder).tensors] == names

    def test_the_text_configuration_may_stand_in_a_table_of_its_own(self, tmp_path: Path) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_5_vl")
        shape = Checkpoint.open(folder).shape

        def nest(config: dict[str, Any]) -> None:
            outer = ("model_type", "architectures", "vision_config", "tie_word_embeddings")
            inner = {key: config.pop(key) for key in [*config] if key not in outer}
            config["text_config"] = {**inner, "model_type": "qwen2_5_vl_text"}

        edit(folder / "config.json", nest)
        found = Checkpoint.open(folder)
        assert found.shape == shape
        assert found.decoder_config["hidden_size"] == shape.hidden
        assert found.vision().tower == SHAPES["qwen2_5_vl"].vision

    @pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
    def test_either_file_says_how_pictures_are_normalized(self, tmp_path: Path, name: str) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen3_vl")
        settings = {"image_mean": [0.1, 0, 0.3], "image_std": [0.4, 0.5, 1]}
        (folder / "preprocessor_config.json").unlink()
        wrapped = {"image_processor": settings} if name.startswith("processor") else settings
        (folder / name).write_text(json.dumps(wrapped))
        vision = Checkpoint.open(folder).vision()
        assert (vision.mean, vision.deviation) == ((0.1, 0.0, 0.3), (0.4, 0.5, 1.0))

    @given(
        st.builds(
            Tower,
            st.just("qwen3_vl"),
            st.integers(1, 8).map(lambda number: 16 * number),
            st.integers(1, 500),
            st.integers(5, 12),
            st.just(4),
            st.integers(1, 32),
            st.just(64),
            st.integers(1, 40).map(lambda side: side * side),
            st.sets(st.integers(0, 4), max_size=4).map(lambda layers: tuple(sorted(layers))),
        )
    )
    def test_a_written_vision_config_gives_the_same_tower_again(self, tower: Tower) -> None:
        # More layers of text than any tower has DeepStack.
        decoder = replace(SHAPES["qwen3_vl"].decoder, layers=64)
        config = {"model_type": "qwen3_vl", "vision_config": vision_config(tower)}
        assert tower_of(config, decoder, "config.json") == tower
        shape = decoder.seeing(tower, 64)
        assert Shape.from_dict(json.loads(json.dumps(asdict(shape)))) == shape

    def test_of_a_model_that_also_hears_and_speaks_the_rest_is_left_out_and_named(
        self, tmp_path: Path
    ) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_5_omni")
        names = ["thinker.audio_tower.conv1.weight", "talker.model.layers.0.mlp.up_proj.weight"]
        names.append("token2wav.code2wav_dit_model.transformer_blocks.0.ff.ff.0.weight")
        stored = load_file(folder / WEIGHTS)
        beside = {name: np.ones((2, 2), np.float32) for name in names}
        save_file(stored | beside, folder / WEIGHTS, {"format": "pt"})
        found = Checkpoint.open(folder)
        assert found.shape == SHAPES["qwen2_5_omni"].decoder
        assert found.vision().tower == SHAPES["qwen2_5_omni"].vision
        assert {*names} < {*found.dropped}
        speech, sound = found.notes
        assert speech.startswith("2 tensors of talker and token2wav, which speak, are left out")
        assert "The audio encoder is left out: llama.cpp computes the sound" in sound
        with pytest.raises(PackError, match=r"cosines of 0\.3 to 0\.6") as caught:
            found.audio()
        assert caught.value.exit_code == ExitCode.INPUT and "Qwen3-ASR" in str(caught.value.hint)

    def test_a_setting_of_the_wrong_kind_is_named_however_deep_it_is(self, tmp_path: Path) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_5_omni")

        def damage(config: dict[str, Any]) -> None:
            config["thinker_config"]["text_config"]["rope_scaling"] = 5

        edit(folder / "config.json", damage)
        refused(folder, "thinker_config.text_config.rope_scaling")

    def test_parts_that_speak_belong_to_no_other_model(self, tmp_path: Path) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_5_vl")
        stored = load_file(folder / WEIGHTS)
        stray = {"talker.model.layers.0.mlp.up_proj.weight": np.ones((2, 2), np.float32)}
        save_file(stored | stray, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(PackError, match=r"'talker.*is not part of the model"):
            Checkpoint.open(folder)


class TestWhatIsRefused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_seeing(tmp_path / "tiny", "qwen3_vl")

    def test_a_tower_that_config_json_describes_and_the_weights_lack(self, folder: Path) -> None:
        _without(
            folder,
            lambda header: {name: value for name, value in header.items() if "visual" not in name},
        )
        assert Checkpoint.open(folder).shape == SHAPES["qwen3_vl"].decoder
        refused(folder, "has no vision tower", "none of its 75 tensors", "--modality text")

    def test_a_model_without_a_tower(self, folder: Path) -> None:
        edit(folder / "config.json", lambda config: config.pop("vision_config"))
        refused(folder, "describes no vision tower", "--modality text")

    def test_a_tower_that_is_cut_off(self, folder: Path) -> None:
        _without(
            folder,
            lambda header: {
                name: value for name, value in header.items() if "visual.blocks.3" not in name
            },
        )
        assert Checkpoint.open(folder).dropped
        refused(folder, "'visual.blocks.3.norm1.weight' is missing", "and 9 more")

    @pytest.mark.parametrize(
        "name", ["visual.merger.norm.bias", "visual.deepstack_merger_list.2.linear_fc2.weight"]
    )
    def test_a_single_tensor_that_is_missing(self, folder: Path, name: str) -> None:
        full = f"model.{name}"
        _without(folder, lambda header: {key: row for key, row in header.items() if key != full})
        refused(folder, f"tensor {name!r} is missing.")

    def test_a_tensor_of_another_shape(self, folder: Path) -> None:
        def turn(header: dict[str, Any]) -> None:
            header["model.visual.pos_embed.weight"]["shape"].reverse()

        edit_header(folder / WEIGHTS, turn)
        refused(folder, "pos_embed.weight' in model.safetensors has the shape [32, 36]")

    def test_the_same_tensor_under_two_names(self, folder: Path) -> None:
        def twice(header: dict[str, Any]) -> dict[str, Any]:
            row = header.pop("model.visual.blocks.1.norm1.bias")
            same = header["model.visual.blocks.1.norm2.bias"]
            assert row["shape"] == same["shape"]
            return {**header, "visual.blocks.1.norm2.bias": row}

        edit_header(folder / WEIGHTS, twice)
        refused(folder, "which are the same tensor")

    def test_no_word_on_how_pictures_are_normalized(self, folder: Path) -> None:
        (folder / "preprocessor_config.json").unlink()
        refused(folder, "does not say how pictures are normalized", "preprocessor_config.json")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("image_mean", [0.5, 0.5]),
            ("image_mean", [0.5, "a", 0.5]),
            ("image_std", [0.5, 0, 0.5]),
            ("image_std", 7),
            ("merge_size", 4),
            ("patch_size", 14),
            ("do_normalize", False),
            ("rescale_factor", 0.5),
        ],
    )
    def test_a_preparation_of_pictures_that_no_engine_has(
        self, folder: Path, key: str, value: object
    ) -> None:
        edit(folder / "preprocessor_config.json", lambda table: table.update({key: value}))
        refused(folder, f"preprocessor_config.json: {key}")

    @pytest.mark.parametrize(
        ("key", "value", "word"),
        [
            ("depth", 1 << 20, "more than 1024 layers"),
            ("hidden_size", 1 << 24, "more than 65536"),
            ("num_position_embeddings", 35, "square"),
            ("num_heads", 5, "cannot share out"),
            ("out_hidden_size", 128, "the text decoder is 64 wide"),
            ("deepstack_visual_indexes", [3, 1], "rising list"),
            ("deepstack_visual_indexes", [0, 4], "rising list"),
            ("deepstack_visual_indexes", [True], "rising list"),
            ("deepstack_visual_indexes", "all", "not a list"),
            ("deepstack_visual_indexes", [0, 1, 2, 3], "4 entries for 4 layers of text"),
            ("hidden_act", "gelu", "only 'gelu_pytorch_tanh' is computed"),
            ("spatial_merge_size", 3, "only 2 is computed"),
            ("temporal_patch_size", 1, "only 2 is computed"),
            ("in_channels", 4, "only 3 is computed"),
            ("patch_size", -1, "not a positive whole number"),
        ],
    )
    def test_a_tower_that_is_not_computed(
        self, folder: Path, key: str, value: object, word: str
    ) -> None:
        edit(folder / "config.json", lambda config: config["vision_config"].update({key: value}))
        refused(folder, f"config.json: vision_config.{key}", word)

    @pytest.mark.parametrize(
        ("key", "value", "word"),
        [
            ("fullatt_block_indexes", [0, 2], "every n-th layer"),
            ("fullatt_block_indexes", [], "every n-th layer"),
            ("window_size", 56, "only 112 is computed"),
        ],
    )
    def test_windows_that_are_not_computed(
        self, tmp_path: Path, key: str, value: object, word: str
    ) -> None:
        folder = write_seeing(tmp_path / "tiny", "qwen2_5_vl")
        edit(folder / "config.json", lambda config: config["vision_config"].update({key: value}))
        refused(folder, key, word)

    def test_truncated_weights(self, folder: Path) -> None:
        os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)
        refused(folder, "cut short")


def _without(folder: Path, keep: Any) -> None:
    """Rewrite the weights with the tensors that are kept alone, their data moved together."""
    path = folder / WEIGHTS
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    meta = header.pop("__metadata__", {})
    rows, out = {"__metadata__": meta}, bytearray()
    for name, row in keep(header).items():
        start, end = row["data_offsets"]
        rows[name] = {**row, "data_offsets": [len(out), len(out) + end - start]}
        out += body[start:end]
    text = json.dumps(rows).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + out)
