"""A trained model that listens, through OpenVINO: its package writes digits down, whole and in
pieces, and ASRPipeline opened on it says the same (training/sound.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.pipeline.sounds import texts_of
from packager.sounds.words import WordErrors, word_errors
from tests.test_hears import PIECE, SETTINGS, TRAINED, errors, sounds
from training import spoken

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hears")
    words = ["build", "--target", "laptop-cpu", "--recipe", "openvino:int8_asym"]
    words += ["--use-case", "audio", "--context", "192", "--max-audio-seconds", str(PIECE)]
    words += ["--max-ttft-ms", "1e8", "--weights", str(TRAINED), "--out", str(home / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_PACK_CACHE", str(home / "cache"))
        assert main(words) == ExitCode.DONE
    return home / "out"


@pytest.fixture(scope="module")
def session(built: Path) -> Iterator[Any]:
    from targets.openvino.audio import AudioSession

    loaded = AudioSession(str(built / "model"), SETTINGS)
    yield loaded
    loaded.close()


def test_digits_are_written_down_whole_and_in_pieces(session: Any, tmp_path: Path) -> None:
    found = errors(session, sounds(2), tmp_path)
    assert found.words > 30 and found.rate < 0.2, found
    # Seven seconds in pieces of three, cut in the pauses.
    found = errors(session, sounds(7, 3), tmp_path)
    assert found.words > 30 and found.rate < 0.25, found


def test_asr_pipeline_says_the_same_as_the_session(built: Path, session: Any) -> None:
    import openvino_genai

    pipeline = openvino_genai.ASRPipeline(built / "model", "CPU", KV_CACHE_PRECISION="f16")
    # The artifact names the ends of turn, beside those that the engine takes of every Qwen3-ASR.
    assert set(session.ends()) <= set(pipeline.get_generation_config().stop_token_ids)
    texts = ["<|im_start|>system\n<|im_end|>\n<|im_start|>user\n", texts_of(built, "")[1]]
    total = WordErrors(0, 0)
    for sound in sounds(3, 4):
        samples = np.asarray(sound.samples)
        answer = pipeline.generate(samples.tolist(), max_new_tokens=40)
        heard = session.hear(texts, samples, 40, lambda _: None)
        said = session.decode(heard.tokens)
        assert said == f"language {answer.languages[0]}<asr_text>{answer.texts[0]}"
        total += word_errors(answer.texts[0], sound.text)
    assert total.words > 20 and total.rate < 0.3, total


def test_a_stream_of_tokens_is_the_answer(session: Any) -> None:
    sound = sounds(2, 1)[0]
    texts = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"]
    told: list[int] = []
    heard = session.hear(texts, np.asarray(sound.samples), 40, told.append)
    assert told == heard.tokens and len(told) > 3

    def broken(_: int) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        session.hear(texts, np.asarray(sound.samples), 40, broken)


@pytest.mark.thorough("test_digits_are_written_down_whole_and_in_pieces")
def test_its_package_counts_word_errors_and_answers_tasks(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
    pytest.importorskip("soxr", reason="the extra for sound")
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "cache"))
    quality = manifest.read(built).contents.quality
    assert quality is not None and quality.passed and quality.sounds is not None
    sound = sounds(7, 1)[0]
    soundfile.write(tmp_path / "a.wav", sound.samples, spoken.RATE, subtype="FLOAT")
    assert main(["run", str(built), "--audio", str(tmp_path / "a.wav")]) == ExitCode.DONE
    answer = capsys.readouterr().out.strip()
    said = word_errors(answer, sound.text)
    assert said.rate < 0.4, said
    row = {"audio": "a.wav", "text": sound.text}
    (tmp_path / "recordings.jsonl").write_text(json.dumps(row))
    given = ["bench", str(built), "--transcripts", str(tmp_path / "recordings.jsonl"), "--json"]
    assert main(given) == ExitCode.DONE
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["word_error_percent"] == pytest.approx(100 * said.rate)
    checks = [{"kind": "transcript", "text": answer}]
    task = {"id": "right", "audio": "a.wav", "checks": checks}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    asked = ["behave", str(built), "--prompts", str(tmp_path / "tasks.jsonl"), "--json"]
    assert main([*asked, "--no-save"]) == ExitCode.DONE
    tried = json.loads(capsys.readouterr().out)
    assert [row["passed"] for row in tried["tasks"]] == [True]


@pytest.mark.thorough("test_digits_are_written_down_whole_and_in_pieces")
def test_it_takes_no_adapter_and_a_rebuild_gives_its_files_again(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--adapter", str(tmp_path), "--base", str(built)]
    assert main([*words, "--weights", str(TRAINED)]) == ExitCode.USAGE
    assert "OpenVINO adds none to a model" in " ".join(capsys.readouterr().err.split())
    again = ["verify", str(built), "--rebuild", "--weights", str(TRAINED)]
    assert main(again) == ExitCode.DONE, capsys.readouterr()
