"""Qwen2-Audio, whose sounds are asked about: what llama.cpp makes of one beside the unquantized
encoder and the published model, and a package from a checkpoint to its answers."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from packager.checkpoint import Checkpoint
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.quality import sounds
from packager.quality.embeddings import weights_of
from packager.reference.audio import features
from packager.reference.whisper import WindowEncoder
from packager.shape.audio import HOP, PREFIX, RATE
from packager.shape.whisper import most_samples, published_tokens
from packager.sounds.made import made
from targets.gguf.convert import convert
from targets.gguf.projector import convert_audio
from targets.llama_cpp.audio import AudioSession
from tests.support.audio import louder, write_hearing
from tests.support.damage import WEIGHTS
from tests.support.serving import client_of, served
from tests.test_projector import Quiet

pytestmark = pytest.mark.engine

SETTINGS: dict[str, Any] = {"context": 1024, "kv": "f16", "threads": 2}
TEXTS = ["<|im_start|>user\nAudio 1: ", "\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"]
SESSION = "targets.llama_cpp.audio:AudioSession"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return louder(
        write_hearing(tmp_path_factory.mktemp("asked") / "tiny", "qwen2_audio", dtype="F16")
    )


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> WindowEncoder:
    hearing = Checkpoint.open(checkpoint).audio()
    return WindowEncoder(hearing.tower, weights_of(hearing.tensors, PREFIX))


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    convert(checkpoint, folder / "model.gguf", "BF16")
    convert_audio(checkpoint, folder / "mmproj.gguf", "F16", report=Quiet())
    return folder


@pytest.fixture(scope="module")
def session(artifact: Path) -> Iterator[AudioSession]:
    session = AudioSession(str(artifact), SETTINGS)
    yield session
    session.close()


def cosines(ours: Any, theirs: Any) -> Any:
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return (ours * theirs).sum(-1) / norms


@pytest.mark.thorough("test_embeddings_are_the_references_however_short_the_sound")
def test_reference_and_names_are_those_of_transformers(
    checkpoint: Path, encoder: WindowEncoder, tmp_path: Path
) -> None:
    """The class reads our names and saves none other; its encoder is ours, over the whole window
    and with the silence hidden, and its processor makes as many tokens."""
    torch = pytest.importorskip("torch", reason="the second witness")
    transformers = pytest.importorskip("transformers", reason="the second witness")
    config = transformers.Qwen2AudioConfig(**json.loads((checkpoint / "config.json").read_text()))
    config.audio_config._attn_implementation = "eager"
    model = transformers.Qwen2AudioForConditionalGeneration(config).float().eval()
    stored = load_file(checkpoint / WEIGHTS)
    model.load_state_dict({name: torch.tensor(row).float() for name, row in stored.items()})
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / WEIGHTS, "numpy") as saved:
        assert set(saved.keys()) == set(stored)
    samples = made(3)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    given = extractor(
        samples,
        sampling_rate=RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    mel = features(encoder.filled(samples))
    assert np.abs(mel - given["input_features"][0].numpy()).max() < 1e-3
    frames = int(given["attention_mask"].sum())
    assert frames == len(samples) // HOP == 300
    states, tokens = model.audio_tower._get_feat_extract_output_lengths(torch.tensor([frames]))
    assert int(tokens) == published_tokens(frames) == 75
    hidden = torch.zeros(1, 1, 1500, 1500)
    hidden[..., int(states) :] = -torch.inf
    for mask, ours in ((None, encoder.embed(mel)), (hidden, encoder.published(mel, frames))):
        with torch.no_grad():
            seen = model.audio_tower(torch.tensor(mel)[None], attention_mask=mask)
            wanted = model.multi_modal_projector(seen.last_hidden_state)[0].numpy()[: len(ours)]
        assert cosines(ours, wanted).min() > 0.999999
        assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()
    with pytest.raises(PackError, match="300 frames is not a window of 3000"):
        encoder.embed(mel[:, :300])


class TestTheSession:
    def test_embeddings_are_the_references_however_short_the_sound(
        self, session: AudioSession, encoder: WindowEncoder
    ) -> None:
        assert len(session.embed_audio(made(1)[:1])) == 750
        for count in (RATE // 2, 2 * RATE):
            sound = made(2)[:count]
            found = cosines(
                session.embed_audio(sound), encoder.embed(features(encoder.filled(sound)))
            )
            assert len(found) == session.audio_tokens(count) == 750
            assert found.min() > 0.9999, count

    def test_silence_is_louder_to_the_engine_than_to_the_published_model(
        self, session: AudioSession, encoder: WindowEncoder
    ) -> None:
        """docs/sound.md says at which level: the day the engine mends it, the page is wrong."""
        for decibels, least, most in ((-3, 0.9999, 1.1), (-20, 0.5, 0.99)):
            sound = made(2) * np.float32(10 ** (decibels / 20))
            wanted = encoder.embed(features(encoder.filled(sound)))
            found = cosines(session.embed_audio(sound), wanted).min()
            assert least < found < most, decibels

    def test_half_a_minute_is_one_window_and_loses_its_last_moment(
        self, session: AudioSession, encoder: WindowEncoder
    ) -> None:
        sound = made(30)
        found = cosines(session.embed_audio(sound), encoder.embed(features(sound)))
        assert len(found) == 750 and most_samples(RATE) == len(sound) - 161
        assert found[:-1].min() > 0.9999 and found[-1] > 0.9

    def test_an_answer_stands_behind_the_sound_and_a_longer_one_is_refused(
        self, session: AudioSession
    ) -> None:
        heard = session.hear(TEXTS, made(2), 4, lambda _: None, stop=False)
        around = sum(len(session.encode(text)) for text in TEXTS)
        assert (heard.audio_tokens, heard.prompt_tokens) == (750, around + 752)
        # The same with the vectors fed one by one, as the gate does.
        before, after = TEXTS
        own = (f"{before}<|audio_bos|>", f"<|audio_eos|>{after}")
        logits, tokens = session.answer_logits(own, session.embed_audio(made(2)), 4)
        assert tokens == heard.tokens and logits.shape[0] == 4
        with pytest.raises(PackError, match=r"has 31.0 s, and this package takes 30 s") as caught:
            session.hear(TEXTS, made(31), 4, lambda _: None)
        assert caught.value.exit_code == ExitCode.INPUT


class TestTheGate:
    def test_it_says_how_far_answers_move_and_stops_damage(
        self, checkpoint: Path, artifact: Path, tmp_path: Path
    ) -> None:
        source = Checkpoint.open(checkpoint)
        facts = sounds.compare(Quiet(), SESSION, str(artifact), SETTINGS, source)
        found, rows = sounds.judged({**facts, "tower_grade": "16-bit"})
        assert found is not None and rows and all(row.passed for row in rows)
        assert (found.tokens, found.published_tokens) == (1500, 275)
        assert found.answer_kl_mean is not None and found.answer_kl_mean > 0
        assert found.answer_top1 is not None and 0 <= found.answer_top1 <= 1
        assert (
            "makes 1500 tokens of the 2 sounds" in found.moved
            and "published model 275" in found.moved
        )
        damaged = tmp_path / "damaged"
        shutil.copytree(artifact, damaged)
        projector = damaged / "mmproj.gguf"
        data = bytearray(projector.read_bytes())
        [tensor] = [
            row
            for row in gguf.GGUFReader(artifact / "mmproj.gguf").tensors
            if row.name == "a.blk.1.attn_out.weight"
        ]
        start = int(tensor.data_offset)
        data[start : start + int(tensor.n_bytes)] = bytes(int(tensor.n_bytes))
        projector.write_bytes(data)
        facts = sounds.compare(Quiet(), SESSION, str(damaged), SETTINGS, source)
        _, rows = sounds.judged({**facts, "tower_grade": "16-bit"})
        assert not all(row.passed for row in rows)

    def test_the_same_vectors_move_nothing(self, session: AudioSession) -> None:
        moved = sounds.Moved()
        vectors = session.embed_audio(made(2))
        moved.add(session, vectors, vectors)
        assert (moved.published, moved.same_top) == (750, 1)
        assert moved.divergence == pytest.approx(0, abs=1e-9)


def test_a_package_answers_questions_about_a_sound(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
    pytest.importorskip("soxr", reason="the extra for sound")
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "out"
    words = ["build", "--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--use-case", "audio"]
    words += ["--context", "1024", "--max-ttft-ms", "1e8"]
    built = [*words, "--weights", str(checkpoint), "--out", str(package)]
    assert main([*built, "--max-audio-seconds", "60"]) == ExitCode.NOTHING_FITS
    assert main([*built, "--max-audio-seconds", "10"]) == ExitCode.DONE
    found = manifest.read(package)
    assert found.data["audio"] == {
        "file": "model/mmproj.gguf",
        "type": "Q8_0",
        "projector": "qwen2a",
        "parameters": Checkpoint.open(checkpoint).audio().tower.parameters(),
        "sample_rate": 16_000,
        "tokens_per_second": 25,
        "max_audio_seconds": 10,
        "window_seconds": 30,
        "window_tokens": 750,
    }
    quality, measured = found.contents.quality, found.contents.measured
    assert quality is not None and quality.sounds is not None and quality.sounds.moved
    assert measured is not None and measured.audio_seconds == 10
    readme = (package / "README.md").read_text()
    assert "fills each sound up to\n30 seconds" in readme and "asr_text" not in readme
    card = (package / "MODEL_CARD.md").read_text()
    assert "audio-text-to-text" in card and "sound of up to 10 seconds in" in card
    assert quality.sounds.moved in card
    for name, seconds in (("short", 2), ("long", 11)):
        soundfile.write(tmp_path / f"{name}.wav", made(seconds), RATE, subtype="FLOAT")
    asking = ["run", str(package), "What is it?", "--max-tokens", "6", "--audio"]
    capsys.readouterr()
    assert main([*asking, str(tmp_path / "short.wav")]) == ExitCode.DONE
    answer = capsys.readouterr().out.rstrip("\n")
    assert main([*asking, str(tmp_path / "long.wav")]) == ExitCode.INPUT
    assert "has 11.0 s, and this package takes 10 s" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "list.jsonl").write_text('{"audio": "short.wav", "text": "a"}')
    counted = ["bench", str(package), "--transcripts", str(tmp_path / "list.jsonl")]
    assert main(counted) == ExitCode.USAGE
    _export(package, tmp_path)
    _tasks(package, tmp_path, capsys)

    def message(name: str) -> list[dict[str, Any]]:
        data = base64.b64encode((tmp_path / f"{name}.wav").read_bytes()).decode()
        sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        return [{"role": "user", "content": [sound, {"type": "text", "text": "What is it?"}]}]

    openai = pytest.importorskip("openai")
    with served(package, tmp_path / "cache") as address:
        create = client_of(address).chat.completions.create
        greedy: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 6}
        got = create(messages=message("short"), **greedy)
        assert got.choices[0].message.content == answer
        assert 752 < got.usage.prompt_tokens < 800
        with pytest.raises(openai.BadRequestError, match="takes 10 s and no more"):
            create(messages=message("long"), **greedy)
        with pytest.raises(openai.BadRequestError, match="answers questions about a sound"):
            client_of(address).audio.transcriptions.create(model="any", file=b"x")


def _export(package: Path, folder: Path) -> None:
    for form, name, words in (
        ("android", "ModelFiles.kt", "refuse a longer one"),
        ("docker", "README.md", "next to the question about it, at most 10 s"),
    ):
        out = folder / form
        asked = ["export", str(package), "--format", form, "--out", str(out)]
        assert main([*asked, "--accept-license", "unstated"]) == ExitCode.DONE
        text = "\n".join(path.read_text() for path in out.rglob(name))
        assert words in text and "language English" not in text, form


def _tasks(package: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The question goes behind the sound, and a sound that is too long is left out."""
    rows = [
        {"id": name, "audio": f"{name}.wav", "prompt": "What is it?", "checks": [{"kind": "stops"}]}
        for name in ("short", "long")
    ]
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    asked = ["behave", str(package), "--prompts", str(folder / "tasks.jsonl"), "--json"]
    assert main([*asked, "--no-save"]) == ExitCode.DONE
    tried = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in tried["tasks"]] == ["short"]
    [left] = tried["left_out"]
    assert left["id"] == "long" and "longer than 10 s" in left["why"]
