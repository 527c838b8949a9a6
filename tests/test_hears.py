"""A trained model that listens: it writes down digits that are dialled or spoken, whole and in
pieces, as a package does; damage is heard (training/sound.py)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.measure.dictation import written_down
from packager.package import manifest
from packager.sounds.words import WordErrors, word_errors
from targets.gguf.convert import convert
from targets.gguf.projector import convert_audio
from targets.llama_cpp import audio
from targets.llama_cpp.audio import AudioSession
from tests.conftest import REPOSITORY
from tests.test_projector import Quiet
from training import spoken

pytestmark = pytest.mark.engine

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3-asr"
TEXTS = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]
SETTINGS: dict[str, Any] = {"context": 256, "kv": "f16", "threads": 1}
SOUNDS, PIECE = 12, 3


def sounds(seconds: int, count: int = SOUNDS) -> list[spoken.Said]:
    """Dialled digits that the training has not had."""
    chance = random.Random("never trained with")
    return [spoken.said(chance, seconds, None) for _ in range(count)]


def files(folder: Path, kind: str) -> Path:
    folder.mkdir()
    convert(TRAINED, folder / "model.gguf", "BF16")
    convert_audio(TRAINED, folder / "mmproj.gguf", kind, report=Quiet())
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioSession]:
    session = AudioSession(str(files(tmp_path_factory.mktemp("hears") / "out", "Q8_0")), SETTINGS)
    yield session
    session.close()


def errors(session: AudioSession, given: list[spoken.Said], folder: Path) -> WordErrors:
    total = WordErrors(0, 0)
    for sound in given:
        path = folder / "sound.f32"
        sound.samples.astype("<f4").tofile(path)
        row = {"path": str(path), "count": len(sound.samples)}
        whole = written_down(session, TEXTS, row, PIECE, SETTINGS["context"], 60)
        assert whole.language == "English" and whole.ended
        total += word_errors(whole.text, sound.text)
    return total


def test_dialled_digits_are_written_down(session: AudioSession, tmp_path: Path) -> None:
    found = errors(session, sounds(2), tmp_path)
    assert found.words > 30 and found.rate < 0.2, found


def test_spoken_digits_are_written_down(session: AudioSession, tmp_path: Path) -> None:
    if not spoken.has_espeak():
        pytest.skip("espeak-ng speaks them, and is not installed")
    pytest.importorskip("soxr", reason="the extra for sound")
    chance, voices = random.Random("spoken"), spoken.Speech(spoken.HELD_OUT)
    found = errors(session, [spoken.said(chance, 2, voices) for _ in range(SOUNDS)], tmp_path)
    assert found.words > 15 and found.rate < 0.4, found


def test_a_long_sound_loses_no_word_where_it_is_cut(session: AudioSession, tmp_path: Path) -> None:
    """Seven seconds in pieces of three, cut in the pauses."""
    found = errors(session, sounds(7, 3), tmp_path)
    assert found.words > 30 and found.rate < 0.25, found


def test_a_sound_that_is_turned_around_is_not_understood(
    session: AudioSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a wrong order of frames would have it."""

    def turned(samples: Any) -> Any:
        return whole(samples)[::-1].copy()

    whole = audio.whole_seconds
    monkeypatch.setattr(audio, "whole_seconds", turned)
    chance = random.Random("turned")
    given = [spoken.said(chance, 2, None) for _ in range(4)]
    total = WordErrors(0, 0)
    for sound in given:
        heard = session.hear(TEXTS, np.asarray(sound.samples), 60, lambda _: None)
        said = session.decode(heard.tokens).rpartition("<asr_text>")[2]
        total += word_errors(said.replace("<|im_end|>", ""), sound.text)
    assert total.rate > 0.4, total


def test_its_package_counts_word_errors_and_answers_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
    pytest.importorskip("soxr", reason="the extra for sound")
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "out"
    words = ["build", "--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--context", "192"]
    words += ["--use-case", "audio", "--max-audio-seconds", str(PIECE), "--max-ttft-ms", "1e8"]
    assert main([*words, "--weights", str(TRAINED), "--out", str(package)]) == ExitCode.DONE
    quality = manifest.read(package).contents.quality
    assert quality is not None and quality.passed and quality.sounds is not None
    recordings, tasks, said = [], [], []
    for number, sound in enumerate((*sounds(2, 1), *sounds(7, 1))):
        name = f"{number}.wav"
        soundfile.write(tmp_path / name, sound.samples, spoken.RATE, subtype="FLOAT")
        capsys.readouterr()
        assert main(["run", str(package), "--audio", str(tmp_path / name)]) == ExitCode.DONE
        answer = capsys.readouterr().out.strip()
        said.append(word_errors(answer, sound.text))
        recordings.append({"audio": name, "text": sound.text})
        check = {"kind": "transcript", "text": answer}
        tasks.append({"id": f"right-{number}", "audio": name, "checks": [check]})
        other = {"kind": "transcript", "text": f"{answer} 1 2 3", "within": 0.01}
        tasks.append({"id": f"wrong-{number}", "audio": name, "checks": [other]})
    tasks.append({"id": "text", "prompt": "Hello?", "checks": [{"kind": "stops"}]})
    # What is said to occur in it leaves no room for an answer.
    tasks.append({**tasks[0], "id": "long", "prompt": "one two three " * 200})
    for name, rows in (("recordings", recordings), ("tasks", tasks)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ["bench", str(package), "--transcripts", str(tmp_path / "recordings.jsonl"), "--json"]
    assert main(given) == ExitCode.DONE
    measured = json.loads(capsys.readouterr().out)["measured"]
    total = sum(said, WordErrors(0, 0))
    assert measured["word_error_percent"] == pytest.approx(100 * total.rate)
    assert (measured["transcript_words"], measured["transcript_seconds"]) == (total.words, 9)
    asked = ["behave", str(package), "--prompts", str(tmp_path / "tasks.jsonl"), "--json"]
    assert main([*asked, "--no-save"]) == ExitCode.DONE
    tried = json.loads(capsys.readouterr().out)
    passed = {row["id"]: row["passed"] for row in tried["tasks"]}
    assert passed == {row["id"]: row["id"].startswith("right") for row in tasks[:-2]}
    assert [row["id"] for row in tried["left_out"]] == ["text", "long"]
    # A list that is not one, and a package that has no ears.
    (tmp_path / "bad.jsonl").write_text('{"audio": "../x.wav", "text": "a"}')
    given[3] = str(tmp_path / "bad.jsonl")
    assert main(given) == ExitCode.INPUT
    assert main(["behave", str(package)]) == ExitCode.USAGE
    assert "no recordings of speech" in " ".join(capsys.readouterr().err.split())
