"""What llama.cpp makes of sound beside the unquantized encoder, and a package that listens: from a
checkpoint to what it writes down."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import rows_of
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.package.verify import verify
from packager.quality import sounds
from packager.reference.audio import AudioEncoder, features
from packager.shape.audio import RATE
from packager.shipping import oci
from packager.shipping.shipment import Shipment
from packager.sounds.made import made
from targets.gguf.convert import convert
from targets.gguf.projector import convert_audio
from targets.llama_cpp.audio import AudioSession, whole_seconds
from tests.support.audio import TOWER, as_published, louder, write_hearing
from tests.support.building import within
from tests.support.serving import served_from_export
from tests.support.spoken_messages import check_spoken_messages, data
from tests.support.transcriptions import check_transcriptions
from tests.test_projector import Quiet

pytestmark = pytest.mark.engine

SETTINGS = {"context": 512, "kv": "f16", "threads": 2}
TEXTS = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return louder(write_hearing(tmp_path_factory.mktemp("listening") / "tiny", dtype="F16"))


def artifact(checkpoint: Path, folder: Path, kind: str) -> Path:
    folder.mkdir()
    convert(checkpoint, folder / "model.gguf", "BF16")
    convert_audio(checkpoint, folder / "mmproj.gguf", kind, report=Quiet())
    return folder


@pytest.fixture(scope="module")
def half(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(checkpoint, tmp_path_factory.mktemp("half") / "out", "F16")


def weights_of(checkpoint: Path) -> Callable[[str], Any]:
    tensors = Checkpoint.open(checkpoint).audio().tensors

    def weights(name: str) -> Any:
        tensor = tensors[f"audio_tower.{name}"]
        return rows_of(tensor).rows(0, math.prod(tensor.shape[:-1])).reshape(tensor.shape)

    return weights


def cosines(ours: Any, theirs: Any) -> Any:
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return (ours * theirs).sum(-1) / norms


def test_the_published_files_without_a_tokenizer_json_make_the_same_gguf(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = as_published(checkpoint, tmp_path / "published" / checkpoint.name)
    for source, name in ((checkpoint, "whole.gguf"), (folder, "two.gguf")):
        convert(source, tmp_path / name, "BF16")
    assert (tmp_path / "two.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


class TestTheReference:
    @pytest.mark.thorough("test_embeddings_are_the_references_within_a_window_and_over_several")
    def test_features_are_those_of_the_published_processor(self) -> None:
        transformers = pytest.importorskip("transformers", reason="the published features")
        extractor = transformers.WhisperFeatureExtractor(feature_size=128)
        for seconds in (1, 3):
            sound = made(seconds)
            theirs = extractor(sound, sampling_rate=RATE, padding=True, truncation=False)
            wanted = np.asarray(theirs["input_features"][0])
            assert features(sound).shape == wanted.shape == (128, 100 * seconds)
            assert np.abs(features(sound) - wanted).max() < 1e-3

    @pytest.mark.thorough("test_embeddings_are_the_references_within_a_window_and_over_several")
    def test_the_encoder_is_the_one_of_transformers(self, checkpoint: Path) -> None:
        """Qwen3-Omni's is the same network; its attention reaches over all, so that sound within
        one window is compared."""
        torch = pytest.importorskip("torch", reason="the second witness")
        pytest.importorskip("transformers", reason="the second witness")
        from transformers.models.qwen3_omni_moe import configuration_qwen3_omni_moe as configs
        from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as models

        config = configs.Qwen3OmniMoeAudioEncoderConfig(
            d_model=TOWER.hidden,
            encoder_layers=TOWER.depth,
            encoder_attention_heads=TOWER.heads,
            encoder_ffn_dim=TOWER.intermediate,
            downsample_hidden_size=TOWER.channels,
            output_dim=TOWER.out,
            n_window=50,
            n_window_infer=800,
        )
        config._attn_implementation = "eager"
        model = models.Qwen3OmniMoeAudioEncoder(config).float().eval()
        weights = weights_of(checkpoint)
        state = {
            name: torch.tensor(weights(name))
            for name in model.state_dict()
            if not name.startswith("positional_embedding")
        }
        model.load_state_dict(state, strict=False)
        assert len(state) == len(list(TOWER.tensors()))
        mel = features(made(3))
        with torch.no_grad():
            out = model(torch.tensor(mel), feature_lens=torch.tensor([mel.shape[1]]))
        wanted = out.last_hidden_state.numpy()
        ours = AudioEncoder(TOWER, weights).embed(mel)
        assert ours.shape == wanted.shape == (39, TOWER.out)
        assert cosines(ours, wanted).min() > 0.999999
        assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()

    def test_a_sound_that_is_not_whole_seconds_is_refused(self, checkpoint: Path) -> None:
        with pytest.raises(PackError, match="150 frames is not whole seconds"):
            AudioEncoder(TOWER, weights_of(checkpoint)).embed(np.zeros((128, 150), np.float32))


class TestTheSession:
    @pytest.fixture(scope="class")
    def session(self, half: Path) -> Iterator[AudioSession]:
        session = AudioSession(str(half), SETTINGS)
        yield session
        session.close()

    def test_embeddings_are_the_references_within_a_window_and_over_several(
        self, session: AudioSession, checkpoint: Path
    ) -> None:
        encoder = AudioEncoder(TOWER, weights_of(checkpoint))
        for seconds in (1, 4.5, 8, 17):
            sound = made(math.ceil(seconds))[: int(seconds * RATE)]
            filled = np.zeros(math.ceil(seconds) * RATE, np.float32)
            filled[: len(sound)] = sound
            found = cosines(session.embed_audio(sound), encoder.embed(features(filled)))
            assert len(found) == 13 * math.ceil(seconds)
            assert found.min() > 0.9999, seconds

    def test_a_whole_number_of_seconds_gets_no_tokens_of_nothing_behind_it(
        self, session: AudioSession
    ) -> None:
        for count, tokens in ((1, 13), (RATE - 1, 13), (RATE, 13), (RATE + 1, 26), (8 * RATE, 104)):
            sound = made(9)[:count]
            assert len(session.embed_audio(sound)) == session.audio_tokens(count) == tokens
        assert len(whole_seconds(made(2))) == 2 * RATE - 1

    def test_an_answer_stands_behind_the_sound_and_hears_it(self, session: AudioSession) -> None:
        said: list[int] = []
        one = session.hear(TEXTS, made(5), 6, said.append, stop=False)
        assert one.tokens == said and len(said) == 6
        assert one.audio_tokens == 65 and one.encode_s > 0
        around = sum(len(session.encode(text)) for text in TEXTS)
        assert one.prompt_tokens == around + 65 + 2
        assert session.hear(TEXTS, made(5), 6, said.append, stop=False).tokens == one.tokens

    def test_what_does_not_fit_is_refused_before_it_is_encoded(self, session: AudioSession) -> None:
        with pytest.raises(PackError, match="sounds take 520 of them") as caught:
            session.hear(TEXTS, made(40), 6, lambda _: None)
        assert caught.value.exit_code == ExitCode.USAGE
        with pytest.raises(PackError, match="No text follows the sound"):
            session.hear(["", ""], made(1), 6, lambda _: None)


class TestTheGate:
    def test_8_bits_pass_their_class_and_damage_does_not(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        source = Checkpoint.open(checkpoint)
        session = "targets.llama_cpp.audio:AudioSession"
        out = artifact(checkpoint, tmp_path / "out", "Q8_0")

        def passes() -> bool:
            facts = sounds.compare(Quiet(), session, str(out), SETTINGS, source)
            found, rows = sounds.judged({**facts, "tower_grade": "8-bit"})
            assert found is not None and found.tokens == 13 * sum(sounds.SECONDS)
            assert [row.rule for row in rows] == ["audio_cosine_mean", "audio_cosine_min"]
            return all(row.passed for row in rows)

        assert passes()
        projector = out / "mmproj.gguf"
        whole = projector.read_bytes()
        for name in ("a.blk.1.attn_out.weight", "a.conv2d.3.weight", "a.position_embd.weight"):
            projector.write_bytes(whole)
            tensor = next(t for t in gguf.GGUFReader(projector).tensors if t.name == name)
            start = int(tensor.data_offset)
            data = bytearray(whole)
            # Of the positions those of one second are used.
            size = min(int(tensor.n_bytes), 13 * 4 * TOWER.hidden)
            data[start : start + size] = bytes(size)
            projector.write_bytes(data)
            assert not passes(), name

    def test_vectors_that_are_no_numbers_miss_every_limit(self) -> None:
        facts = {"sounds": 2, "tokens": 26, "broken": 1, "cosine_mean": 1.0, "cosine_min": 1.0}
        _, rows = sounds.judged({"sounds": facts, "tower_grade": "16-bit"})
        assert rows and not any(row.passed for row in rows)


class TestThePackage:
    FLAGS = ("--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--use-case", "audio")
    NEED = ("--context", "256", "--max-audio-seconds", "8", "--max-ttft-ms", "1e8")

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("package")

    @pytest.fixture(scope="class")
    def built(self, folder: Path, checkpoint: Path) -> Path:
        out = folder / "package"
        own = ("--weights", str(checkpoint), "--out", str(out))
        done = within(folder, "build", *self.FLAGS, *self.NEED, *own)
        assert done.returncode == 0, done.stderr
        return out

    def test_the_manifest_says_what_is_taken_and_what_was_measured(self, built: Path) -> None:
        found = manifest.read(built)
        roles = {entry.path: entry.role for entry in found.files if entry.role}
        assert roles == {"model/mmproj.gguf": "projector"} and not verify(built)
        assert found.contents.modality == "audio" and found.data["vision"] is None
        assert found.data["audio"] == {
            "file": "model/mmproj.gguf",
            "type": "Q8_0",
            "projector": "qwen3a",
            "parameters": TOWER.parameters(),
            "sample_rate": 16_000,
            "tokens_per_second": 13,
            "max_audio_seconds": 8,
        }
        measured = found.contents.measured
        assert measured is not None and measured.audio_seconds == 8
        for figure in ("audio_encode_ms", "audio_ttft_ms", "audio_seconds_per_second"):
            assert getattr(measured, figure) > 0
        assert measured.first_token_ms == measured.audio_ttft_ms
        quality = found.contents.quality
        assert quality is not None and quality.sounds is not None and quality.sounds.broken == 0
        readme = (built / "README.md").read_text()
        assert "llama-mtmd-cli --model model/model.gguf --mmproj model/mmproj.gguf" in readme
        assert "--chat-template chatml" in readme and "no field for sound" in readme
        card = (built / "MODEL_CARD.md").read_text()
        assert "pipeline_tag: " in card and "automatic-speech-recognition" in card
        assert "sound in, what is said in it out as text, 8 seconds at once" in card

    def test_apps_and_containers_are_told_of_the_encoder_and_ollama_is_not(
        self, built: Path, folder: Path
    ) -> None:
        projector = "model/mmproj.gguf"
        for form, wanted in (
            ("android", f'PROJECTOR = "{projector}" AUDIO_SECONDS = 8'),
            ("ios", f'projector = "{projector}" audioSeconds: Int32 = 8'),
            ("embedded", f'QWEN_PACK_PROJECTOR "{projector}" #define QWEN_PACK_AUDIO_SECONDS 8'),
            ("docker", f'"--mmproj", "/opt/qwen-pack/package/{projector}" "chatml"'),
        ):
            out = folder / form
            words = ("--format", form, "--out", str(out), "--accept-license", "unstated")
            done = within(folder, "export", str(built), *words)
            assert done.returncode == 0, done.stderr
            endings = (".kt", ".swift", ".c", ".h", "", ".md")
            files = [path for path in out.rglob("*") if path.is_file() and path.suffix in endings]
            own = [path for path in files if "package" not in path.relative_to(out).parts]
            text = "\n".join(path.read_text() for path in own)
            for part in re.split(r" (?=AUDIO|audio|#|\"chatml)", wanted):
                assert part in text, (form, part)
            assert "ision tower" not in text and "IMAGE_TOKENS" not in text, form
            # What writes sound down is asked no questions.
            assert "capital of France" not in text, form
        assert "capital of France" not in (built / "README.md").read_text()
        out = folder / "ollama"
        words = ("--format", "ollama", "--out", str(out), "--accept-license", "unstated")
        done = within(folder, "export", str(built), *words)
        assert done.returncode == 2 and "no field for sound" in done.stderr and not out.exists()
        found = manifest.read(built)
        own_entry = manifest.FileEntry(manifest.NAME, 0, "0" * 64)
        images = oci.images(Shipment(built, found, (own_entry, *found.files)))
        assert [image.suffix for image in images] == ["", "-docker"]
        kinds = [blob.media_type for blob in images[1].blobs]
        assert "application/vnd.docker.ai.mmproj" in kinds
        assert b'"inputTypes":["text","audio"]' in b"".join(
            (blob.data or b"").replace(b" ", b"") for blob in images[0].blobs
        )

    def test_a_sound_is_written_down_in_pieces(self, built: Path, folder: Path) -> None:
        soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
        pytest.importorskip("soxr", reason="the extra for sound")
        soundfile.write(folder / "a.wav", made(11), RATE)
        done = within(
            folder, "run", str(built), "--audio", str(folder / "a.wav"), "--max-tokens", "4"
        )
        assert done.returncode == 0, done.stderr
        assert "The sound has 11 s: it is cut into pieces of at most 8." in done.stderr
        for words in (("Hello", "--image", "a.png", "--audio", "a.wav"), ()):
            assert within(folder, "run", str(built), *words).returncode == 2
        (folder / "b.wav").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
        wrong = within(folder, "run", str(built), "--audio", str(folder / "b.wav"))
        assert wrong.returncode == 6 and "is a picture" in wrong.stderr

    @pytest.mark.thorough("test_a_sound_is_written_down_in_pieces")
    def test_it_is_served_and_what_is_no_sound_is_refused(self, built: Path, folder: Path) -> None:
        pytest.importorskip("soundfile", reason="the extra for sound")
        pytest.importorskip("soxr", reason="the extra for sound")
        pytest.importorskip("openai")
        (folder / "c.wav").write_bytes(data(made(5)))
        words = ("--audio", str(folder / "c.wav"), "--max-tokens", "6")
        expected = within(folder, "run", str(built), *words).stdout.rstrip("\n")
        with served_from_export(built, folder / "served") as address:
            check_spoken_messages(address, expected)
            check_transcriptions(address, data)

    def test_a_package_of_text_alone_refuses_sound(self, built: Path, folder: Path) -> None:
        data = json.loads((built / "manifest.json").read_text())
        assert data["workload"]["max_audio_seconds"] == 8
        done = within(folder, "run", str(built), "What is it?", "--image", "a.png")
        assert done.returncode == 2 and "takes no pictures" in done.stderr
