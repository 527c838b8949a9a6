"""Qwen2-Audio, whose sounds are asked about: what llama.cpp makes of one beside the unquantized
encoder and the published model, and a package from a checkpoint to its answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.quality import sounds
from packager.quality.embeddings import weights_of
from packager.reference.audio import features
from packager.reference.whisper import WindowEncoder
from packager.shape.audio import PREFIX, RATE
from packager.shape.whisper import most_samples
from packager.sounds.made import made
from targets.gguf.convert import convert
from targets.gguf.projector import convert_audio
from targets.llama_cpp.audio import AudioSession
from tests.support.audio import louder, write_hearing
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
