"""Sound through OpenVINO: the graphs beside the unquantized encoder and decoder, ASRPipeline's own
answers and features, and a package from a checkpoint to what it writes down."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.process import JobResult
from packager.quality import sounds
from packager.reference.audio import AudioEncoder, features
from packager.reference.forward import embedded, through_layers, token_ids
from packager.reference.rope import Rope
from packager.reference.states import Reference
from packager.shape.audio import RATE
from packager.sounds.made import made
from targets.openvino import OpenVino, hearing
from targets.openvino.data import compression_of
from tests.support.audio import ASKED_SHAPE, SHAPE, TOWER, as_published, louder, write_hearing
from tests.support.child_jobs import finish
from tests.test_llama_audio import cosines, weights_of
from tests.test_projector import Quiet

SETTINGS: dict[str, Any] = {"context": 512, "kv": "f16", "threads": 2}
TEXTS = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]
SESSION = "targets.openvino.audio:AudioSession"


class TestRefusals:
    def test_what_cannot_be_built_with_an_encoder_is_refused_with_the_reason(self) -> None:
        runtime = OpenVino()
        for recipe in ("bf16", "int8_asym", "int4_sym_g128"):
            assert runtime.obstacle(SHAPE, runtime.recipe(recipe)) is None
        for shape, recipe, reason in (
            (ASKED_SHAPE, "bf16", "sound with qwen3_asr here, whose graphs qwen-pack writes"),
            (SHAPE, "q8_0", "keeps ggml's blocks"),
        ):
            found = runtime.obstacle(shape, runtime.recipe(recipe))
            assert found is not None and reason in found
        repacking = runtime.with_repack(128)
        found = repacking.obstacle(SHAPE, repacking.recipe("int4_asym_g128"))
        assert found is not None and "--repack" in found
        assert "takes sound" in (runtime.adapter_obstacle({}, "audio") or "")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return louder(write_hearing(tmp_path_factory.mktemp("listening") / "tiny", dtype="F16"))


def built(checkpoint: Path, recipe: str, out: Path) -> Path:
    """The artifact, as a build makes it."""
    result, _ = finish(
        OpenVino.build_job,
        out.with_suffix(".log"),
        checkpoint=str(checkpoint),
        recipe={**asdict(OpenVino().recipe(recipe)), "inputs": {"modality": "audio"}},
        workload={"context": 512},
        out=str(out),
    )
    assert isinstance(result, JobResult)
    return out


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(checkpoint, "bf16", tmp_path_factory.mktemp("half") / "out")


@pytest.fixture(scope="module")
def session(artifact: Path) -> Iterator[Any]:
    from targets.openvino.audio import AudioSession

    loaded = AudioSession(str(artifact), SETTINGS)
    yield loaded
    loaded.close()


class Part(AudioEncoder):
    """The unquantized encoder over features that are not whole seconds, as the published model
    computes them: the convolutions of the last second take zeros behind its frames, and what those
    become is no token (modeling_qwen3_asr.py of QwenLM/Qwen3-ASR)."""

    def part(self, mel: Any) -> Any:
        frames = mel.shape[1]
        filled = np.zeros((128, -(-frames // 100) * 100), np.float32)
        filled[:, :frames] = mel
        stems = [self._stem(filled[:, start : start + 100]) for start in range(0, frames, 100)]
        tokens = 13 * (frames // 100) + -(-(frames % 100) // 8)
        state, windows = np.concatenate(stems)[:tokens], []
        for start in range(0, tokens, 104):
            own = state[start : start + 104]
            for layer in range(TOWER.depth):
                own = self._layer(f"layers.{layer}.", own)
            windows.append(self._norm("ln_post", own))
        from packager.reference.audio import gelu

        return self._linear("proj2", gelu(self._linear("proj1", np.concatenate(windows))))


@pytest.mark.engine
class TestTheGraphs:
    def test_vectors_are_the_references_within_a_window_and_over_several(
        self, session: Any, checkpoint: Path
    ) -> None:
        encoder = AudioEncoder(TOWER, weights_of(checkpoint))
        for seconds in (1, 4.5, 8, 10, 30):
            sound = made(math.ceil(seconds))[: int(seconds * RATE)]
            filled = np.zeros(math.ceil(seconds) * RATE, np.float32)
            filled[: len(sound)] = sound
            found = cosines(session.embed_audio(sound), encoder.embed(features(filled)))
            assert len(found) == 13 * math.ceil(seconds) == session.audio_tokens(len(sound))
            assert found.min() > 0.9999, seconds

    def test_what_the_engine_fills_up_with_zeros_is_not_seen(
        self, artifact: Path, checkpoint: Path
    ) -> None:
        """ASRPipeline hands all of a sound over at once, the last second filled up with zeros, and
        takes as many tokens of it as its frames make."""
        from targets.openvino.shared_core import shared_core

        graph = shared_core().compile_model(artifact / hearing.ENCODER, "CPU")
        encoder = Part(TOWER, weights_of(checkpoint))
        for frames in (37, 250, 800, 931, 1999):
            mel = features(made(20)[: 160 * frames])
            given = np.zeros((-(-frames // 100), 128, 100), np.float32)
            for frame in range(frames):
                given[frame // 100, :, frame % 100] = mel[:, frame]
            wanted = encoder.part(mel)
            rows = graph({"input_features": given})[0].reshape(-1, TOWER.out)
            assert cosines(rows[: len(wanted)], wanted).min() > 0.9999, frames

    def test_tokens_are_those_of_the_unquantized_model(
        self, session: Any, checkpoint: Path
    ) -> None:
        source = Checkpoint.open(checkpoint)
        encoder = AudioEncoder(TOWER, weights_of(checkpoint))
        samples = made(9)
        said: list[int] = []
        heard = session.hear(TEXTS, samples, 8, said.append, stop=False)
        assert heard.tokens == said and len(said) == 8
        assert heard.audio_tokens == 117 and heard.encode_s > 0
        before = session.encode(TEXTS[0] + hearing.BEGIN)
        after = session.encode(hearing.END + TEXTS[1])
        assert heard.prompt_tokens == len(before) + 117 + len(after)
        ids = [token_ids(part, source.shape) for part in (before, [*after, *said])]
        head, tail = (embedded(source, [part]) for part in ids)
        whole = np.concatenate([head, encoder.embed(features(samples)), tail])
        states = through_layers(source, whole, [len(whole)], Rope(source.positions), Quiet())
        reference = Reference(source, (np.zeros(9, np.int64),), states[-9:])
        logits = reference.logits(0)
        assert logits[:8].argmax(-1).tolist() == said
        rows, likeliest = session.answer_logits(TEXTS, session.embed_audio(samples), 8)
        assert likeliest == said
        assert np.corrcoef(rows.ravel(), logits[:8].ravel())[0, 1] > 0.9999

    def test_a_prompt_of_text_is_answered_as_by_the_unquantized_model(
        self, session: Any, checkpoint: Path
    ) -> None:
        source = Checkpoint.open(checkpoint)
        prompt = session.encode("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
        said = session.generate(prompt, 8, lambda _: None, stop=False)
        wanted = Reference.compute(source, [[*prompt, *said]], Quiet()).logits(0)
        assert wanted[len(prompt) - 1 : -1].argmax(-1).tolist() == said
        ours = np.concatenate([block.copy() for block in session.logits([*prompt, *said])])
        assert ours.shape == wanted.shape
        assert np.corrcoef(ours.ravel(), wanted.ravel())[0, 1] > 0.9999
        # The pipeline is opened again.
        assert session.generate(prompt, 8, lambda _: None, stop=False) == said

    def test_the_published_files_without_a_tokenizer_json_give_the_same_tokens(
        self, session: Any, checkpoint: Path, tmp_path: Path
    ) -> None:
        from targets.openvino.audio import AudioSession

        folder = as_published(checkpoint, tmp_path / "published")
        other = AudioSession(str(built(folder, "bf16", tmp_path / "out")), SETTINGS)
        text = f"{TEXTS[0]}{hearing.BEGIN}{hearing.PAD}{hearing.END} tab\tnot e\u0301 日本 42<asr_text>"
        assert other.encode(text) == session.encode(text)
        assert other.decode(other.encode(text)) == session.decode(session.encode(text))
        other.close()
        definition = json.loads((checkpoint / "tokenizer.json").read_text())
        tokens = [entry["content"] for entry in definition["added_tokens"]]
        assert all(len(other_ids) == 1 for other_ids in map(session.encode, tokens))

    def test_what_does_not_fit_is_refused_before_it_is_encoded(self, session: Any) -> None:
        with pytest.raises(PackError, match="sounds take 520 of them") as caught:
            session.hear(TEXTS, made(40), 6, lambda _: None)
        assert caught.value.exit_code == ExitCode.USAGE
        with pytest.raises(PackError, match="No text follows the sound"):
            session.hear(["", ""], made(1), 6, lambda _: None)
        with pytest.raises(PackError, match="no state of a model that takes sound"):
            session.keep_prefix([1], Path("state"))


@pytest.mark.engine
class TestTheEnginesOwnPipeline:
    def test_its_features_are_the_published_ones(self, artifact: Path, tmp_path: Path) -> None:
        from tests.support.engine_features import RESOLUTION, engine_features

        sound = made(1)
        sound[12_000:] = 0
        found = engine_features(artifact, sound, tmp_path / "spelled")
        assert found.shape == (128, 100)
        # One in ten thousand lies at an edge of its triangle, where single precision tells.
        apart = np.abs(found - features(sound))
        assert np.quantile(apart, 0.999) < 1e-3 + RESOLUTION and apart.max() < 0.02

    def test_it_opens_the_artifact_and_says_what_the_session_says(
        self, artifact: Path, session: Any
    ) -> None:
        import openvino_genai

        pipeline = openvino_genai.ASRPipeline(artifact, "CPU", KV_CACHE_PRECISION="f16")
        for seconds in (3, 9):
            more: dict[str, Any] = {"language": "English", "max_new_tokens": 8}
            answer = pipeline.generate(made(seconds).tolist(), ignore_eos=True, **more)
            before = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n"
            after = f"{TEXTS[1]}language English<asr_text>"
            heard = session.hear([before, after], made(seconds), 8, lambda _: None, stop=False)
            told = pipeline.get_tokenizer().decode(heard.tokens)
            assert answer.texts[0] == told and answer.languages[0] == "English"


@pytest.mark.engine
class TestTheGate:
    def passes(self, out: Path, source: Path, grade: str) -> bool:
        opened = Checkpoint.open(source)
        facts = sounds.compare(Quiet(), SESSION, str(out), SETTINGS, opened)
        found, rows = sounds.judged({**facts, "tower_grade": grade})
        assert found is not None and found.tokens == 13 * sum(sounds.SECONDS)
        assert [row.rule for row in rows] == ["audio_cosine_mean", "audio_cosine_min"]
        return all(row.passed for row in rows)

    def test_16_and_8_bits_pass_their_classes(
        self, artifact: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        assert self.passes(artifact, checkpoint, "16-bit")
        out = built(checkpoint, "int8_sym", tmp_path / "out")
        assert self.passes(out, checkpoint, "8-bit")
        # The decoder's 4 bits are not the encoder's.
        out = built(checkpoint, "int4_sym_g64", tmp_path / "four")
        assert self.passes(out, checkpoint, "8-bit")

    def test_damage_does_not(
        self, artifact: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from openvino import opset13 as ops

        from targets.openvino import light_audio
        from targets.openvino.audio_graph import EncoderGraph

        def one_window(graph: Any, chunks: Any) -> Any:
            """Every second by itself, as an exporter has it that knows no windows."""
            count, _, _ = whole(graph, chunks)
            return count, graph._numbers([1]), graph._numbers([0])

        def turned(graph: Any, planes: Any) -> Any:
            order = graph._numbers(list(range(127, -1, -1)))
            return stem(graph, ops.gather(planes, order, graph._number(2)))

        whole, stem = EncoderGraph._windows, EncoderGraph._stem
        for name, other in (("_windows", one_window), ("_stem", turned)):
            with monkeypatch.context() as patch:
                patch.setattr(EncoderGraph, name, other)
                (tmp_path / name).mkdir()
                light_audio.export(Quiet(), checkpoint, None, tmp_path / name / "out", 512)
            assert not self.passes(tmp_path / name / "out", checkpoint, "16-bit"), name
        cut = tmp_path / "cut"
        shutil.copytree(artifact, cut)
        weights = (cut / hearing.ENCODER).with_suffix(".bin")
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        with pytest.raises(PackError, match="OpenVINO cannot load") as caught:
            self.passes(cut, checkpoint, "16-bit")
        assert caught.value.exit_code == ExitCode.INPUT

    def test_files_that_say_something_else_are_refused_before_the_engine_reads_them(
        self, artifact: Path, tmp_path: Path
    ) -> None:
        from targets.openvino.audio import AudioSession

        out = tmp_path / "out"
        shutil.copytree(artifact, out)

        def changed(name: str, *keys: str, to: Any) -> None:
            data = json.loads((artifact / name).read_text())
            inner = data
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = to
            (out / name).write_text(json.dumps(data))

        audio = ("thinker_config", "audio_config")
        cases: list[tuple[str, tuple[str, ...], Any, str]] = [
            ("preprocessor_config.json", ("hop_length",), 0, "hop_length is 0 in place of 160"),
            ("preprocessor_config.json", ("n_fft",), 1 << 40, "n_fft"),
            ("preprocessor_config.json", ("feature_size",), True, "feature_size"),
            ("config.json", (*audio, "n_window"), 100, "n_window"),
            ("config.json", (*audio, "d_model"), "64", "d_model"),
        ]
        for name, keys, value, sentence in cases:
            changed(name, *keys, to=value)
            with pytest.raises(PackError, match=sentence) as caught:
                AudioSession(str(out), SETTINGS)
            assert caught.value.exit_code == ExitCode.INPUT, keys
            shutil.copy(artifact / name, out / name)
        for name in ("preprocessor_config.json", "config.json", hearing.ENCODER):
            (out / name).rename(tmp_path / "aside")
            with pytest.raises(PackError, match=f"holds no {name}"):
                AudioSession(str(out), SETTINGS)
            (tmp_path / "aside").rename(out / name)


class TestSizes:
    @pytest.mark.engine
    @pytest.mark.parametrize("recipe", ["bf16", "int8_asym", "int4_sym_g64"])
    def test_the_files_are_as_large_as_forecast(
        self, recipe: str, artifact: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        from targets.openvino import audio_sizes

        out = artifact if recipe == "bf16" else built(checkpoint, recipe, tmp_path / "out")
        runtime = OpenVino()
        known = runtime.recipe(recipe)
        size = (out / hearing.ENCODER).with_suffix(".bin").stat().st_size
        assert audio_sizes.encoder(TOWER, compression_of(known)).stored == pytest.approx(
            size, abs=2048
        )
        total = sum(path.stat().st_size for path in out.iterdir())
        assert runtime.artifact_bytes(SHAPE, known) == pytest.approx(total, rel=0.1)
