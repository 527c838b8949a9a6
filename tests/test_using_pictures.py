"""`run --image` and `bench` with a package that takes pictures, and the figures that come of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from packager import catalog
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.need.workload import workload_for
from packager.package import manifest
from packager.pictures import prompt
from packager.pipeline.comparison import undecided
from packager.records import Measurement
from packager.records.contents import Predicted
from packager.records.measurement import OnDevice
from packager.records.verdict import Verdict
from packager.report import figures
from packager.report.budgets import verdicts
from packager.select import candidates
from targets import registry
from tests.support.tiny_vision import TEMPLATE, tiny
from tests.support.trained_package import write_trained
from tests.support.vision_package import write_seeing, written
from tests.test_pictures import REFUSED


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("llama_cpp", "transformers", "torch", "PIL"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("seeing")
    return write_seeing(folder / "package", tiny("qwen3_vl", folder / "tiny"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    drawn = image.new("RGB", (320, 128), (200, 30, 30))
    drawn.paste((0, 0, 255), (0, 0, 100, 100))
    drawn.save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


@pytest.mark.engine
def test_run_answers_about_pictures_and_says_what_it_left_out_of_them(
    package: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    moving = tmp_path / "moving.webp"
    frames = [Image.new("RGB", (96, 64), (0, shade, 0)) for shade in (10, 200)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    ask = ["run", str(package), "what is this?", "--max-tokens", "6", "--image", str(picture)]
    answers = []
    for more in ([], ["--image", str(moving)], []):
        assert main([*ask, *more]) == ExitCode.DONE
        said = capsys.readouterr()
        answers.append(said.out)
        assert ("moving.webp is animated: the first of its 2 frames is taken" in said.err) == bool(
            more
        )
    assert answers[0] == answers[2] != answers[1]
    assert main(["run", str(package), "what is this?", "--max-tokens", "6"]) == ExitCode.DONE
    assert capsys.readouterr().out not in answers


@pytest.mark.engine
def test_run_refuses_what_is_no_picture_and_packages_that_take_none(
    package: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fake.png").write_bytes(b"<svg xmlns='x'/>")
    text = write_trained(tmp_path / "text")
    plain = tmp_path / "plain"
    shutil.copytree(package, plain)
    (plain / "chat_template.jinja").write_text("{{ messages[0].content[-1].text }}")
    written(plain)
    joined = tmp_path / "joined"
    shutil.copytree(package, joined)
    (joined / "chat_template.jinja").write_text("{{ 'user: ' + messages[0].content }}")
    written(joined)
    bare = tmp_path / "bare"
    shutil.copytree(package, bare)
    (bare / "chat_template.jinja").unlink()
    written(bare)
    cases: list[tuple[Path, Path, str, int, str]] = [
        (package, tmp_path / "fake.png", "hi", ExitCode.INPUT, "is an SVG picture"),
        (package, tmp_path / "none.png", "hi", ExitCode.USAGE, "no file or folder"),
        (package, tmp_path, "hi", ExitCode.INPUT, "is not a file"),
        (package, picture, "<|image_pad|>", ExitCode.USAGE, "writes <|image_pad|> itself"),
        (package, picture, "word " * 600, ExitCode.USAGE, "the package's context is 512"),
        (text, picture, "hi", ExitCode.USAGE, "takes no pictures: it was built for text alone"),
        (plain, picture, "hi", ExitCode.INPUT, "writes 0 places for 1 pictures"),
        (joined, picture, "hi", ExitCode.INPUT, "does not take the pictures: The chat template"),
        (bare, picture, "hi", ExitCode.INPUT, "there is none"),
    ]
    for where, image, question, code, sentence in cases:
        assert main(["run", str(where), question, "--image", str(image)]) == code, sentence
        said = capsys.readouterr()
        assert sentence in " ".join(said.err.split()), said.err
        assert said.out == ""


@pytest.mark.engine
@pytest.mark.thorough(
    "test_what_is_no_picture_or_too_much_of_one_is_refused_in_a_sentence",
    "test_run_refuses_what_is_no_picture_and_packages_that_take_none",
)
def test_hostile_pictures_end_run_with_a_sentence_and_code_6(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("a bomb", "30,000 pixels", "one pixel", "cut png", "svg", "gif", "a zip behind"):
        make, sentence = REFUSED[case]
        (tmp_path / "given").write_bytes(make())
        asked = ["run", str(package), "what is this?", "--image", str(tmp_path / "given")]
        assert main(asked) == ExitCode.INPUT, case
        said = capsys.readouterr()
        assert sentence in " ".join(said.err.split()) and said.out == "", case


@pytest.mark.engine
def test_bench_tells_how_long_pictures_take(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["bench", str(package), "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    now = Measurement.from_json(answer["measured"])
    assert now.image_encode_256_ms and now.image_ttft_ms and now.image_decode_tps
    assert now.image_encode_1024_ms is None
    assert now.image_tokens == 256
    assert now.image_prompt_tokens is not None
    assert 256 + 32 < now.image_prompt_tokens < 512
    assert now.image_load_s
    assert now.text_peak_memory_bytes and now.peak_memory_bytes
    assert now.text_peak_memory_bytes <= now.peak_memory_bytes
    assert now.ttft_ms and now.decode_tps
    left = " ".join(now.left_out)
    assert "pictures of 1024 tokens: the package takes 256" in left
    names = {row["figure"] for row in answer["rows"] if row["now"] is not None}
    assert {"image_ttft_ms", "image_encode_256_ms", "image_decode_tps"} <= names


@pytest.mark.engine
def test_pictures_smaller_than_the_usual_ones_are_measured_too(package: Path) -> None:
    from packager.measure.pictures import Looking
    from targets.llama_cpp.vision import VisionSession
    from tests.support.make_checkpoint import Silent

    told = {}
    for context, most in ((200, 64), (70, 64), (150, 64)):
        settings = {"context": context, "kv": "f16", "threads": 1, "image_max_tokens": most}
        session = VisionSession(str(package / "model"), settings)
        looking = Looking(Silent(), session, context, most, 100, 1)
        told[context] = looking.figures(lambda: 7)
        told[context] |= looking.pair(told[context])
        assert any("256 tokens: the package takes 64" in text for text in looking.left_out)
        session.close()
    assert told[200]["image_tokens"] == 64 and told[200]["image_ttft_ms"] > 0
    assert told[200]["image_pair_ttft_ms"] > 0 and told[150]["image_ttft_ms"] > 0
    assert "image_pair_ttft_ms" not in told[150]
    assert looking.left_out[-1] == "two pictures of 64 tokens: the context has 150"
    assert "image_encode_256_ms" not in told[200]
    assert "image_ttft_ms" not in told[70] and told[70]["text_peak_memory_bytes"] == 7


def test_the_forecast_of_the_first_token_stands_beside_the_one_with_a_picture() -> None:
    predicted = Predicted.from_json({"forecast": {"ttft_ms": 200.0, "encode_ms": 150.0}})
    text = Measurement(ttft_ms=100.0, prompt_tokens=64)
    seeing = text.but(
        image_ttft_ms=400.0,
        image_encode_256_ms=60.0,
        image_encode_1024_ms=300.0,
        image_tokens=1024,
        peak_memory_bytes=5,
        text_peak_memory_bytes=4,
    )

    def errors(measured: Measurement | None) -> dict[str, Any]:
        rows = figures.rows(measured, None, predicted)
        return {row.label: (row.predicted, row.error_percent) for row in rows}

    assert errors(None) == {"first token": (200.0, None)}
    assert errors(text) == {"first token, 64 tokens": (200.0, 100.0)}
    with_pictures = errors(seeing)
    assert with_pictures["first token, 64 tokens"] == (None, None)
    assert with_pictures["first token with a picture of 1,024 tokens"] == (200.0, -50.0)
    assert with_pictures["encode a picture of 256 tokens"] == (None, None)
    assert with_pictures["encode a picture of 1,024 tokens"] == (150.0, -50.0)
    assert "peak memory, with a picture of 1,024 tokens" in with_pictures
    off = figures.errors_percent(seeing, None, predicted)
    assert off["image_ttft_ms"] == off["image_encode_1024_ms"] == -50.0
    assert not any("encode" in name for name in figures.errors_percent(text, None, predicted))
    limit = Verdict(rule="ttft", limit=300.0, unit="ms", enforced=True)
    assert verdicts([limit], 0, text)[0].passed
    assert not verdicts([limit], 0, seeing)[0].passed


def test_a_smaller_picture_than_the_planned_one_is_no_check_of_its_forecast() -> None:
    """Where that one takes too long, or has no room."""
    predicted = Predicted.from_json(
        {
            "forecast": {"ttft_ms": 200.0, "encode_ms": 150.0},
            "footprint": {"peak": 1000, "total": 1000},
            "image_tokens": 1000,
        }
    )
    seen = Measurement(
        ttft_ms=100.0,
        prompt_tokens=64,
        peak_memory_bytes=900,
        text_peak_memory_bytes=500,
        image_encode_256_ms=60.0,
        image_ttft_ms=100.0,
        image_tokens=256,
    )
    texts = {row.label: row.texts() for row in figures.rows(seen, None, predicted)}
    memory = "peak memory, with a picture of 256 tokens, predicted for a picture of 1,000 tokens"
    assert texts[memory][1:] == ("900 B", "")
    first = "first token with a picture of 256 tokens, predicted for a picture of 1,000 tokens"
    assert texts[first] == ("200 ms", "100 ms", "")
    assert texts["encode a picture of 256 tokens"] == ("", "60.0 ms", "")
    assert texts["first token, 64 tokens"] == ("", "100 ms", "")
    off = figures.errors_percent(seen, None, predicted)
    assert off["peak_memory_bytes"] is None and off["image_ttft_ms"] is None
    # Measured ones are square: 31 x 31 is the planned one.
    planned = figures.errors_percent(seen.but(image_tokens=961), None, predicted)
    assert planned["peak_memory_bytes"] == 11.11 and planned["image_ttft_ms"] == 100.0
    # Where none was measured, the figures of a text are no check either.
    text = seen.but(image_ttft_ms=None, image_tokens=None, text_peak_memory_bytes=None)
    texts = {row.label: row.texts() for row in figures.rows(text, None, predicted)}
    assert texts["first token, 64 tokens"] == ("", "100 ms", "")
    assert texts["peak memory, predicted for a picture of 1,000 tokens"][1:] == ("900 B", "")


def test_memory_with_pictures_of_different_sizes_does_not_decide_which_package_is_kept() -> None:
    seen = Measurement(peak_memory_bytes=9, image_tokens=1024)
    smaller, heard = seen.but(image_tokens=576), seen.but(image_tokens=None, audio_seconds=9)
    for other in (smaller, heard):
        assert "of different sizes" in str(undecided([seen, other], "smallest"))
        assert "of different sizes" in str(undecided([seen, other], "balanced"))
        assert undecided([seen, other], "speed") is None
    assert undecided([seen, seen], "smallest") is None
    for elsewhere in (None, seen.but(place=OnDevice(on_device=False, why="it is another"))):
        assert "another machine" in str(undecided([seen, elsewhere], "speed"))


def test_a_forecast_keeps_the_picture_or_sound_that_it_holds() -> None:
    for case, name, field in (
        ("vision", "Qwen3-VL-2B-Instruct", "image_tokens"),
        ("audio", "Qwen3-ASR-0.6B", "audio_seconds"),
        ("chat", "Qwen3-0.6B", ""),
    ):
        workload = workload_for(case)
        judged = candidates(
            registry.target("laptop-cpu"),
            workload,
            [catalog.find(name)],
            [registry.runtime("llama.cpp")],
        )
        kept = Predicted.from_json(judged[0].predicted())
        held = {"image_tokens": kept.image_tokens, "audio_seconds": kept.audio_seconds}
        limits = {
            "image_tokens": workload.max_image_tokens,
            "audio_seconds": workload.max_audio_seconds,
        }
        assert held == {one: limits[one] if one == field else None for one in held}


def test_a_shorter_sound_than_the_planned_one_is_no_check_of_its_forecast() -> None:
    predicted = Predicted.from_json(
        {"footprint": {"peak": 1000, "total": 1000}, "audio_seconds": 30}
    )
    heard = Measurement(peak_memory_bytes=900, text_peak_memory_bytes=500, audio_seconds=12)
    labels = {row.label: row.error_percent for row in figures.rows(heard, None, predicted)}
    assert labels["peak memory, with a sound of 12 s, predicted for a sound of 30 s"] is None
    whole = figures.rows(heard.but(audio_seconds=30), None, predicted)
    assert whole[0].label == "peak memory, with a sound of 30 s"
    assert whole[0].error_percent == pytest.approx(11.11, abs=0.01)


def test_a_question_about_pictures_is_written_as_the_template_does() -> None:
    from packager.checkpoint import template

    usual, omni = prompt.PLACES
    for kind in (TEMPLATE, TEMPLATE.replace(usual, omni)):
        rendered = template.render(kind, prompt.messages("what?", 2))
        assert prompt.around(rendered, 2) == [
            "<|im_start|>user\n",
            "",
            "what?<|im_end|>\n<|im_start|>assistant\n",
        ]
    with pytest.raises(PackError, match=r"writes <\|IMAGE\|> itself"):
        prompt.messages("what is <|IMAGE|>?", 1)
    for text, count in ((rendered, 1), ("no place", 1), ("<|image_pad|>", 0)):
        with pytest.raises(PackError) as caught:
            prompt.around(text, count)
        assert caught.value.exit_code == ExitCode.INPUT


def test_a_manifest_says_how_many_tokens_a_picture_may_take(tmp_path: Path) -> None:
    from packager.measure.session_settings import image_limit, most_of

    (tmp_path / "README.md").write_text("x")
    found = manifest.read(written(tmp_path))
    assert most_of(found) == 256
    assert image_limit(256) == {"image_max_tokens": 256}
    found = manifest.read(written(tmp_path, workload=None))
    assert image_limit(most_of(found)) == {}
