"""The audio encoder of a checkpoint, and the projector file (mmproj) that one pass writes of it:
tensor for tensor and key for key what llama.cpp's own converter writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from packager import catalog
from packager.checkpoint import Checkpoint
from packager.checkpoint.audio import wrong_encoder
from packager.checkpoint.numbers import rows_of
from packager.errors import ExitCode, PackError
from packager.shape import Shape
from packager.shape.audio import AudioTower, audio_tower_of
from targets.gguf import tower
from targets.gguf.arch import architecture
from targets.gguf.convert import convert
from targets.gguf.presets import ROOM
from targets.gguf.projector import convert_audio
from tests.support.audio import SHAPE, SHAPES, TOWER, write_hearing
from tests.support.vision import SINUSOIDS, summary
from tests.test_projector import GOLDEN, Quiet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hearing(tmp_path_factory.mktemp("hearing") / "tiny")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hearing(tmp_path_factory.mktemp("asked") / "tiny", "qwen2_audio")


def config(folder: Path, **changes: Any) -> None:
    """Change the audio_config of a checkpoint."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data.get("thinker_config", data)["audio_config"] |= changes
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("model_type", sorted(SHAPES))
def test_every_type_is_what_llama_cpps_converter_writes(model_type: str, tmp_path: Path) -> None:
    checkpoint = write_hearing(tmp_path / "tiny", model_type)
    encoder = SHAPES[model_type].audio
    assert encoder is not None
    for kind in tower.TYPES:
        out = tmp_path / f"{kind}.gguf"
        convert_audio(checkpoint, out, kind, report=Quiet())
        assert summary(out) == GOLDEN[model_type][kind], kind
        assert out.stat().st_size == tower.file_bytes(encoder, kind, ROOM)
    convert(checkpoint, tmp_path / "text.gguf", "BF16")
    assert summary(tmp_path / "text.gguf") == GOLDEN[model_type]["text"]


def test_positions_that_a_checkpoint_stores_are_taken_as_they_are(asked: Path) -> None:
    out = asked / "out.gguf"
    convert_audio(asked, out, "F16", report=Quiet())
    [table] = [row for row in gguf.GGUFReader(out).tensors if row.name == SINUSOIDS]
    stored = Checkpoint.open(asked).audio().tensors["audio_tower.embed_positions.weight"]
    wanted = rows_of(stored).rows(0, 1500)
    assert table.data.dtype == np.float32 and np.array_equal(table.data, wanted)


def test_what_the_official_config_leaves_out_is_what_its_class_takes() -> None:
    """Qwen2-Audio-7B's text_config has neither widths nor numbers of layers and heads."""
    text = {"intermediate_size": 11008, "vocab_size": 156032, "max_position_embeddings": 8192}
    config = {"model_type": "qwen2_audio", "text_config": text, "audio_config": {}}
    found = architecture(config)
    assert (found.layers, found.number("hidden_size"), found.shape.hidden) == (32, 4096, 4096)
    variant = catalog.find("Qwen2-Audio-7B-Instruct")
    assert audio_tower_of(config, found.shape, "config.json") == variant.audio_tower


def test_positions_are_sines_and_cosines_of_the_place_in_a_second(
    checkpoint: Path, tmp_path: Path
) -> None:
    convert_audio(checkpoint, tmp_path / "out.gguf", "F16", report=Quiet())
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    table = tensors[SINUSOIDS].data
    assert table.shape == (1500, TOWER.hidden) and table.dtype == np.float32
    half = TOWER.hidden // 2
    for place in (0, 12, 1499):
        angles = place / 10_000 ** (np.arange(half) / (half - 1))
        wanted = np.concatenate([np.sin(angles), np.cos(angles)])
        assert np.abs(table[place] - wanted).max() < 2e-7 * max(1, place)


def test_the_weights_follow_from_the_widths_and_the_catalogue_agrees() -> None:
    found = [variant for variant in catalog.load() if variant.audio_tower is not None]
    assert {variant.name for variant in found} == {
        *("Qwen3-ASR-0.6B", "Qwen3-ASR-1.7B"),
        *("Qwen2-Audio-7B", "Qwen2-Audio-7B-Instruct"),
    }
    for variant in found:
        encoder, shape = variant.audio_tower, variant.shape
        assert encoder is not None and shape is not None
        assert encoder.parameters() == variant.params_audio
        assert variant.params_total == shape.parameters() + encoder.parameters()
        planned = list(tower.tensors(encoder))
        assert len({tensor.name for tensor in planned}) == len(planned)
        assert all(sum(part.rows for part in tensor.parts) == tensor.rows for tensor in planned)
        whole = shape.hearing(encoder, 30)
        again = Shape.from_config(whole.to_config(), "config.json")
        assert again == shape.decoder
        assert audio_tower_of(whole.to_config(), again, "config.json") == encoder


def test_text_alone_never_looks_at_the_encoder(tmp_path: Path) -> None:
    folder = write_hearing(tmp_path / "tiny")
    config(folder, encoder_layers=7)
    assert Checkpoint.open(folder).shape == SHAPE.decoder


REFUSED = (
    ({"n_window_infer": 400}, "n_window_infer is 400, and only 800"),
    ({"n_window": 100}, "n_window is 100, and only 50"),
    ({"num_mel_bins": 80}, "num_mel_bins is 80, and only 128"),
    ({"activation_function": "relu"}, "activation_function is 'relu'"),
    ({"scale_embedding": True}, "scale_embedding is true"),
    ({"output_dim": 128}, "output_dim is 128, and the text decoder is 64 wide"),
    ({"encoder_attention_heads": 3}, "cannot share out 64"),
    ({"encoder_layers": 5}, "'audio_tower.layers.4.self_attn.q_proj.weight' is missing"),
    ({"encoder_layers": 3}, "layers.3.* is not part of the model"),
    ({"encoder_layers": 10**9}, "no encoder has more than"),
    ({"d_model": "64"}, "d_model is '64'"),
    ({"downsample_hidden_size": 12}, "instead of"),
)


REFUSED_OF_WINDOWS = (
    ({"max_source_positions": 750}, "max_source_positions is 750, and only 1500"),
    ({"num_mel_bins": 80}, "num_mel_bins is 80, and only 128"),
    ({"scale_embedding": True}, "scale_embedding is true"),
    ({"encoder_attention_heads": 3}, "cannot share out 64"),
    ({"encoder_layers": 4}, "'audio_tower.layers.3.self_attn.k_proj.weight' is missing"),
    ({"encoder_layers": 2}, "layers.2.* is not part of the model"),
    ({"d_model": 128}, "instead of"),
)


@pytest.mark.parametrize(
    ("model_type", "refused", "features"),
    [
        ("qwen3_asr", REFUSED, {"hop_length": 80}),
        ("qwen2_audio", REFUSED_OF_WINDOWS, {"chunk_length": 60}),
    ],
)
def test_an_encoder_that_is_not_computed_is_refused_with_key_and_reason(
    tmp_path: Path, model_type: str, refused: Any, features: dict[str, int]
) -> None:
    folder = write_hearing(tmp_path / "tiny", model_type)
    plain = (folder / "config.json").read_text()
    for changes, words in refused:
        config(folder, **changes)
        source = Checkpoint.open(folder)
        with pytest.raises(PackError, match=words) as caught:
            source.audio()
        assert caught.value.exit_code == ExitCode.INPUT, words
        (folder / "config.json").write_text(plain)
    [(key, value)] = features.items()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | features))
    with pytest.raises(PackError, match=f"{key} is {value}"):
        Checkpoint.open(folder).audio()


def test_another_encoder_than_the_one_planned_for_is_named() -> None:
    other = AudioTower(64, 72, 3, 2, 24, 64)
    assert other.parameters() < TOWER.parameters()
    error = wrong_encoder(Path("folder"), "Qwen/Qwen3-ASR-0.6B", other, TOWER)
    assert "in 4 layers instead of" in error.message and error.exit_code == ExitCode.INPUT
