"""A package that takes sound through OpenVINO, from a checkpoint with random weights to what it
writes down, by its README, `run`, `serve` and an export."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packager.package import manifest
from packager.package.verify import verify
from packager.shape.audio import RATE
from packager.sounds.made import made
from targets.openvino import hearing
from tests.support.audio import TOWER, louder, write_hearing
from tests.support.building import within
from tests.support.serving import served, served_from_export
from tests.support.spoken_messages import check_spoken_messages, data
from tests.support.transcriptions import check_transcriptions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return louder(write_hearing(tmp_path_factory.mktemp("listening") / "tiny", dtype="F16"))


@pytest.mark.engine
class TestThePackage:
    FLAGS = ("--target", "laptop-cpu", "--recipe", "openvino:int8_asym", "--use-case", "audio")
    NEED = ("--context", "256", "--max-audio-seconds", "8", "--max-ttft-ms", "1e8")

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("package")

    @pytest.fixture(scope="class")
    def package(self, folder: Path, checkpoint: Path) -> Path:
        out = folder / "package"
        own = ("--weights", str(checkpoint), "--out", str(out))
        done = within(folder, "build", *self.FLAGS, *self.NEED, *own)
        assert done.returncode == 0, done.stderr
        return out

    def test_the_manifest_says_what_is_taken_and_what_was_measured(self, package: Path) -> None:
        found = manifest.read(package)
        roles = {entry.path: entry.role for entry in found.files if entry.role}
        assert roles == {f"model/{hearing.ENCODER}": "projector"} and not verify(package)
        assert found.contents.modality == "audio" and found.data["vision"] is None
        assert found.data["audio"] == {
            "file": f"model/{hearing.ENCODER}",
            "type": "INT8",
            "projector": "qwen3_asr",
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
        (oldest,) = [
            row for row in found.contents.runtime.minimum if row.engine == "openvino-genai"
        ]
        assert oldest.version == "2026.3"
        readme = (package / "README.md").read_text()
        assert "openvino_genai.ASRPipeline" in readme and "at most 8 seconds" in readme
        card = (package / "MODEL_CARD.md").read_text()
        assert "automatic-speech-recognition" in card

    def test_the_commands_of_its_readme_write_a_sound_down(
        self, package: Path, folder: Path
    ) -> None:
        soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
        pytest.importorskip("soxr", reason="the extra for sound")
        readme = (package / "README.md").read_text()
        code = readme.split("```python\n")[1].split("```")[0]
        work = folder / "readme"
        work.mkdir()
        (work / "model").symlink_to(package / "model")
        soundfile.write(work / "sound.wav", made(3), 8_000)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=False
        )
        # Weights of chance: any words, or none.
        assert done.returncode == 0 and done.stdout, done.stderr

    def test_a_sound_is_written_down_in_pieces(self, package: Path, folder: Path) -> None:
        soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
        pytest.importorskip("soxr", reason="the extra for sound")
        soundfile.write(folder / "a.wav", made(11), RATE)
        done = within(
            folder, "run", str(package), "--audio", str(folder / "a.wav"), "--max-tokens", "4"
        )
        assert done.returncode == 0, done.stderr
        assert "The sound has 11 s: it is cut into pieces of at most 8." in done.stderr

    @pytest.mark.thorough("test_a_sound_is_written_down_in_pieces")
    @pytest.mark.parametrize("how", ["serve", "export"])
    def test_it_is_served_and_what_is_no_sound_is_refused(
        self, package: Path, folder: Path, how: str
    ) -> None:
        pytest.importorskip("soundfile", reason="the extra for sound")
        pytest.importorskip("soxr", reason="the extra for sound")
        pytest.importorskip("openai")
        sound = folder / "c.wav"
        sound.write_bytes(data(made(5)))
        words = ("--audio", str(sound), "--max-tokens", "6")
        expected = within(folder, "run", str(package), *words).stdout.rstrip("\n")
        opened: Callable[[Path, Path], Any] = served if how == "serve" else served_from_export
        with opened(package, folder / how) as address:
            check_spoken_messages(address, expected)
            check_transcriptions(address, data)
