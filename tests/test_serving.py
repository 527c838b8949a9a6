"""`qwen-pack serve` and the serve.py of exports with packages of llama.cpp, asked by OpenAI's own
client: text, and pictures in data: URLs."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.content import content_sha256
from packager.shipping.router.main import KIND
from packager.sounds.words import word_errors
from tests.support.hearing_package import write_hearing_package
from tests.support.serving import answering, client_of, served, served_from_export
from tests.support.tiers import thorough
from tests.support.tiny_vision import tiny
from tests.support.trained_package import write_trained
from tests.support.vision_package import write_seeing
from training import spoken

pytestmark = pytest.mark.engine

GREEDY: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("llama_cpp", "transformers", "torch", "PIL"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("seeing")
    return write_seeing(folder / "package", tiny("qwen3_vl", folder / "tiny"))


@pytest.fixture(scope="module", params=[served_from_export, thorough(served)])
def client(package: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param(package, package.parent / request.param.__name__) as address:
        yield client_of(address)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (160, 96)) -> bytes:
    from PIL import Image

    drawn = Image.new("RGB", size, colour)
    drawn.paste((0, 0, 255), (0, 0, 50, 50))
    out = io.BytesIO()
    drawn.save(out, "PNG")
    return out.getvalue()


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def asking(*addresses: str, text: str = "what is this?") -> list[Any]:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": address}} for address in addresses
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


RED, GREEN = (200, 30, 30), (10, 200, 30)


def test_a_picture_is_answered_as_run_does_whatever_was_asked_before(
    client: Any, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = []
    for number, colours in enumerate(([RED], [GREEN], [RED, GREEN])):
        words = ["run", str(package), "what is this?", "--max-tokens", "6"]
        for place, colour in enumerate(colours):
            path = tmp_path / f"{number}{place}.png"
            path.write_bytes(picture(colour))
            words += ["--image", str(path)]
        assert main(words) == ExitCode.DONE
        expected.append(capsys.readouterr().out.rstrip("\n"))
    assert len(set(expected)) == 3
    for number, colours in ((0, [RED]), (1, [GREEN]), (0, [RED]), (2, [RED, GREEN]), (0, [RED])):
        messages = asking(*(url(picture(colour)) for colour in colours))
        answer = client.chat.completions.create(messages=messages, **GREEDY)
        assert answer.choices[0].message.content == expected[number].lstrip("\n")
        # 160 x 96 pixels are 5 x 3 tokens of 32.
        assert answer.usage.prompt_tokens > 15 * len(colours)
    pieces = client.chat.completions.create(
        messages=asking(url(picture(GREEN))), stream=True, **GREEDY
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == expected[1].lstrip("\n")


def test_a_conversation_goes_on_after_its_picture(client: Any) -> None:
    turns = asking(url(picture(RED)))
    first = client.chat.completions.create(messages=turns, **GREEDY)
    turns += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "and now?"},
    ]
    second = client.chat.completions.create(messages=turns, **GREEDY)
    client.chat.completions.create(messages=[{"role": "user", "content": "hello"}], **GREEDY)
    again = client.chat.completions.create(messages=turns, **GREEDY)
    assert again.choices[0].message.content == second.choices[0].message.content
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 6


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says so and whose pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sums = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + sums

    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head = chunk(b"IHDR", sides + b"\x08\x02\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_no_address_is_asked_and_what_is_no_picture_is_refused_in_a_sentence(client: Any) -> None:
    openai = pytest.importorskip("openai")
    whole = picture(RED)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.settimeout(0.2)
        cases: list[tuple[list[Any], str]] = [
            (asking(f"http://127.0.0.1:{nobody.getsockname()[1]}/x.png"), "which is not fetched"),
            (asking("https://example.com/cat.png"), "which is not fetched"),
            (asking("file:///etc/passwd"), "which is not fetched"),
            (asking("/etc/passwd"), "which is not fetched"),
            (asking("data:text/html;base64,eA=="), "which is not fetched"),
            (asking("data:image/png;base64,!!"), "not in base64"),
            (asking(url(b"")), "picture 1 is empty"),
            (asking(url(b"<svg xmlns='x'/>", "svg+xml")), "is an SVG picture"),
            (asking(url(whole[:-20])), "is truncated"),
            (asking(url(whole + b"PK\x03\x04")), "is more than a PNG picture"),
            (asking(url(png_of(30_000, 30_000))), "more than 16384 a side"),
            (asking(url(png_of(16_000, 16_000))), "more than 67 million"),
            (asking(url(b"GIF89a" + bytes(40))), "is a GIF picture"),
            (asking(url(png_of(1, 1))), "sees nothing in less than 8"),
            (asking(url(png_of(64, 64))), "cannot be decoded"),
            (asking(url(whole), text="<|image_pad|>"), "does not take the pictures"),
            (asking(url(whole), text="word " * 600), "the context holds 512"),
            (asking(*[url(whole)] * 65), "more than 64 pictures"),
            (
                [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
                "was built for text and pictures",
            ),
            (
                [{"role": "user", "content": [{"type": "image_url"}]}],
                "a picture without `image_url`",
            ),
        ]
        for messages, sentence in cases:
            with pytest.raises(openai.BadRequestError, match=sentence):
                client.chat.completions.create(messages=messages, **GREEDY)
        with pytest.raises(TimeoutError):
            nobody.accept()
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(messages=asking("x" * (33 << 20)), **GREEDY)
    assert caught.value.status_code == 413
    answer = client.chat.completions.create(messages=asking(url(whole)), **GREEDY)
    assert answer.choices[0].message.content


def test_a_package_of_text_answers_as_run_does_and_refuses_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openai = pytest.importorskip("openai")
    text, question = write_trained(tmp_path / "package"), "What is 3 + 4?"
    assert main(["run", str(text), question, "--max-tokens", "60"]) == ExitCode.DONE
    expected = capsys.readouterr().out.strip()
    assert expected.isdigit()
    with served(text, tmp_path / "cache") as address:
        client = client_of(address)
        asked = [{"role": "user", "content": question}]
        more: dict[str, Any] = {"model": "any", "temperature": 0, "max_tokens": 120}
        more["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
        for _ in range(2):
            answer = client.chat.completions.create(messages=asked, **more)
            assert answer.choices[0].message.content == expected
            assert answer.choices[0].finish_reason == "stop"
        schema = {"type": "object", "properties": {"sum": {"type": "integer"}}}
        schema |= {"required": ["sum"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = client.chat.completions.create(messages=asked, response_format=form, **more)
        assert isinstance(json.loads(answer.choices[0].message.content)["sum"], int)
        drawn = {**more, "temperature": 1.5, "seed": 3}
        texts = {
            client.chat.completions.create(messages=asked, **drawn).choices[0].message.content
            for _ in range(2)
        }
        assert len(texts) == 1
        wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}}
        with pytest.raises(openai.BadRequestError, match="does not accept this JSON schema"):
            client.chat.completions.create(messages=asked, response_format=wrong, **more)
        with pytest.raises(openai.BadRequestError, match="was built for text alone"):
            client.chat.completions.create(messages=asking(url(b"x")), **GREEDY)
        # Also where the sound is larger than any request of text.
        with pytest.raises(openai.BadRequestError, match="this model takes no sound"):
            client.audio.transcriptions.create(model="any", file=("a.wav", bytes(5 << 20)))


def test_a_routing_table_leads_pictures_and_sound_to_the_packages_that_take_them(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
    pytest.importorskip("soxr", reason="the extra for sound")
    openai = pytest.importorskip("openai")
    sees = shutil.copytree(package, tmp_path / "sweep" / "packages" / "sees")
    hears = write_hearing_package(tmp_path / "sweep" / "packages" / "hears")
    rows = {
        kind: {
            "cell": folder.name,
            "package": f"packages/{folder.name}",
            "evidence": {"content_sha256": content_sha256(manifest.read(folder).data)},
        }
        for kind, folder in (("look", sees), ("dictation", hears))
    }
    table = {"schema": "qwen-pack/route/1", "name": "files", "routes": {"box": rows}}
    (tmp_path / "sweep" / "report").mkdir()
    (tmp_path / "sweep" / "report" / "route.json").write_text(json.dumps(table))
    out = tmp_path / "out"
    agreed = ("--accept-license", "unstated")
    assert main(["route", str(tmp_path / "sweep"), "--out", str(out), *agreed]) == ExitCode.DONE
    readme = (out / "README.md").read_text()
    assert "jinja2 llama-cpp-python pillow psutil soundfile soxr" in readme
    assert "/v1/audio/transcriptions --form model=dictation --form file=@sound.wav" in readme
    (tmp_path / "red.png").write_bytes(picture(RED))
    sound = spoken.said(random.Random("routed"), 5, None)
    soundfile.write(tmp_path / "said.wav", sound.samples, spoken.RATE, subtype="FLOAT")
    capsys.readouterr()
    looking = [str(sees), "what is this?", "--max-tokens", "6", "--image"]
    assert main(["run", *looking, str(tmp_path / "red.png")]) == ExitCode.DONE
    seen = capsys.readouterr().out.strip()
    assert main(["run", str(hears), "--audio", str(tmp_path / "said.wav")]) == ExitCode.DONE
    heard = capsys.readouterr().out.strip()
    assert word_errors(heard, sound.text).rate < 0.3
    recorded = (tmp_path / "said.wav").read_bytes()
    one: dict[str, Any] = {"model": "dictation", "file": ("said.wav", recorded)}
    with answering(["serve.py", "--port", "0"], out, {}) as address:
        client = client_of(address)
        answer = client.chat.completions.with_raw_response.create(
            messages=asking(url(picture(RED))), **{**GREEDY, "model": "look"}
        )
        assert answer.headers["X-Qwen-Pack-Package"] == "sees"
        assert answer.parse().choices[0].message.content.strip() == seen
        for other in ({**one, "model": "sees"}, {**one, "extra_headers": {KIND: "look"}}):
            with pytest.raises(openai.BadRequestError, match="this model takes no sound"):
                client.audio.transcriptions.create(**other)
        with pytest.raises(openai.NotFoundError, match="Did you mean 'dictation'"):
            client.audio.transcriptions.create(**{**one, "model": "dictaton"})
        write = client.audio.transcriptions.with_raw_response.create
        whole = write(**one, response_format="verbose_json")
        assert whole.headers["X-Qwen-Pack-Package"] == "hears"
        told = whole.parse()
        assert (told.text, told.language, told.finish_reason) == (heard, "English", "stop")
        assert told.duration == pytest.approx(5, abs=0.5)
        pieces = [*client.audio.transcriptions.create(**one, stream=True)]
        assert pieces[-1].text == heard and len(pieces) > 3
        with pytest.raises(openai.BadRequestError, match="this model was built for text and sound"):
            client.chat.completions.create(
                messages=asking(url(picture(RED))), **{**GREEDY, "model": "dictation"}
            )
    # The second file is compared like the first, before anything is opened.
    projector = out / "packages" / "sees" / "model" / "mmproj.gguf"
    projector.write_bytes(projector.read_bytes()[:-1] + b"\x07")
    with answering(["serve.py", "--port", "0"], out, {}) as address:
        with pytest.raises(openai.InternalServerError, match=r"mmproj\.gguf is not what the m"):
            client_of(address).chat.completions.create(
                messages=asking(url(picture(RED))), **{**GREEDY, "model": "look"}
            )
        assert client_of(address).audio.transcriptions.create(**one).text == heard


def test_other_machines_are_kept_out_and_a_taken_port_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = str(write_trained(tmp_path / "package"))
    assert main(["serve", package, "--host", "0.0.0.0"]) == ExitCode.USAGE
    assert "can be reached from other machines" in " ".join(capsys.readouterr().err.split())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", package, "--port", port]) == ExitCode.USAGE
    assert f"Port {port} on 127.0.0.1 cannot be used" in " ".join(capsys.readouterr().err.split())
