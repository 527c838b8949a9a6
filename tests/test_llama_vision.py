"""Pictures through llama.cpp: the image encoder and the answers of every family beside transformers,
limits, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.quality import parity
from packager.session import VisionSession as Protocol
from targets.llama_cpp.session import Session, model_file
from targets.llama_cpp.vision import VisionSession
from tests.support.tiny_omni import FAMILY as OMNI
from tests.support.tiny_omni import TinyOmni, tiny_omni
from tests.support.tiny_vision import FAMILIES, Tiny, special_tokens, tiny

# Looked for and not imported: each worker of a run collects every file.
WITNESS = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("torch") is None,
    reason="needs transformers and torch, the second witness",
)
pytestmark = [pytest.mark.engine, WITNESS]

ASK = ["<|im_start|>user\n", "what is this?<|im_end|>\n<|im_start|>assistant\n"]


@pytest.fixture(scope="module", params=[*FAMILIES, OMNI])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    if request.param == OMNI:
        return tiny_omni(tmp_path_factory.mktemp(OMNI))
    return tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def session(model: Tiny) -> Iterator[VisionSession]:
    loaded = VisionSession(str(model.artifact), {"context": 512, "kv": "f16", "threads": 1})
    yield loaded
    loaded.close()


def drawn(model: Tiny, rows: int, columns: int, *, turn: int = 0) -> np.ndarray[Any, Any]:
    """A picture that no engine resizes: slopes of red and green, and blue squares."""
    height, width = rows * model.factor, columns * model.factor
    y, x = np.mgrid[0:height, 0:width]
    squares = ((x // 9 + y // 7) % 2) * 200
    channels = [x * 255 // width, y * 255 // height, squares]
    return np.stack(channels[turn:] + channels[:turn], -1).astype(np.uint8)


def stored(rgb: np.ndarray[Any, Any], path: Path) -> dict[str, Any]:
    path.write_bytes(rgb.tobytes())
    return {"path": str(path), "width": rgb.shape[1], "height": rgb.shape[0]}


def test_the_embeddings_and_answers_of_a_picture_are_those_of_transformers(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    """One wide and one tall, so that neither the grid nor the positions behind it are square."""
    answers = []
    for turn, (rows, columns) in enumerate(((4, 6), (7, 3))):
        rgb = drawn(model, rows, columns, turn=turn)
        picture = stored(rgb, tmp_path / f"{turn}.rgb")
        ours, theirs = session.embed_image(picture), model.embeddings(rgb)
        assert ours.shape == theirs.shape
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(1) / norms).min() > 0.9999
        told: list[int] = []
        seen = session.look(ASK, [picture], 8, told.append, stop=False)
        ids = [
            *session.encode(ASK[0] + "<|vision_start|>"),
            *[model.image_id] * (rows * columns),
            *session.encode("<|vision_end|>" + ASK[1]),
        ]
        assert (seen.prompt_tokens, seen.image_tokens) == (len(ids), rows * columns)
        assert seen.encode_s > 0
        assert seen.tokens == told == model.answer(ids, rgb, 8)
        answers.append(seen.tokens)
    assert answers[0] != answers[1]


def test_the_tokens_that_llama_cpp_writes_around_a_picture_are_the_checkpoints(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    """Qwen2.5-Omni has other names for them, which the file does not keep: the gate allows that."""
    ids = special_tokens(model.artifact.parent / "text")
    for written, other in (
        ("<|vision_start|>", "<|vision_bos|>"),
        ("<|vision_end|>", "<|vision_eos|>"),
    ):
        assert session.encode(written) == [ids.get(written, ids.get(other))]
    if isinstance(model, TinyOmni):
        source = Checkpoint.open(model.folder)
        found = parity.check(session, source, tmp_path / "log", stops=False)
        assert (found.findings, found.control_tokens) == ((), len(ids))


def test_swapped_channels_and_another_picture_give_other_embeddings(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    """What the comparison with transformers would not let through."""
    rgb = drawn(model, 4, 6)
    ours = session.embed_image(stored(rgb, tmp_path / "a.rgb"))
    swapped = session.embed_image(stored(rgb[..., ::-1], tmp_path / "b.rgb"))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(swapped, axis=1)
    assert ((ours * swapped).sum(1) / norms).min() < 0.99


def test_no_answer_depends_on_the_one_before_and_text_alone_is_the_text_sessions(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    picture = stored(drawn(model, 2, 5), tmp_path / "a.rgb")
    first = session.look(ASK, [picture], 6, lambda _: None, stop=False).tokens
    prompt = session.encode("".join(ASK))
    text = session.generate(prompt, 6, lambda _: None, stop=False)
    again = session.look(ASK, [picture], 6, lambda _: None, stop=False).tokens
    assert first == again
    plain = Session(str(model.artifact), {"context": 512, "kv": "f16", "threads": 1})
    assert plain.generate(prompt, 6, lambda _: None, stop=False) == text
    plain.close()


def test_several_pictures_stand_where_they_are_put(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    one = stored(drawn(model, 3, 4), tmp_path / "a.rgb")
    two = stored(drawn(model, 4, 3, turn=1), tmp_path / "b.rgb")
    texts = ["<|im_start|>user\n", "and", ASK[1]]
    there = session.look(texts, [one, two], 6, lambda _: None, stop=False)
    back = session.look(texts, [two, one], 6, lambda _: None, stop=False)
    assert there.image_tokens == back.image_tokens == 24
    assert there.prompt_tokens == 24 + 4 + len(session.encode("".join(texts)))
    assert there.tokens != back.tokens


def test_the_limits_of_a_session_say_how_many_tokens_a_picture_takes(
    model: Tiny, session: VisionSession
) -> None:
    side = 8 * model.factor
    assert session.image_tokens(side, side) == 64
    # Outside 8 to 4,096 tokens a picture is resized.
    assert session.image_tokens(8, 8) >= 8
    assert session.image_tokens(8000, 6000) <= 4096
    assert session.image_side(256) == 16 * model.factor
    settings = {"context": 512, "kv": "f16", "threads": 1}
    small = VisionSession(str(model.artifact), {**settings, "image_max_tokens": 32})
    large = VisionSession(str(model.artifact), {**settings, "image_min_tokens": 100})
    assert small.image_tokens(side, side) <= 32
    assert large.image_tokens(side, side) >= 100
    with pytest.raises(PackError, match="No picture takes 256 tokens") as caught:
        small.image_side(256)
    assert caught.value.exit_code == ExitCode.USAGE
    small.close()
    large.close()


def test_what_does_not_fit_the_context_is_refused_before_anything_is_encoded(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    side = 22 * model.factor
    gone = {"path": str(tmp_path / "never read"), "width": side, "height": side}
    with pytest.raises(PackError, match="pictures take 484 of them") as caught:
        session.look(ASK, [gone], 8, lambda _: None)
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(PackError, match="No text follows") as caught:
        session.look(["a", ""], [gone], 8, lambda _: None)
    assert caught.value.exit_code == ExitCode.USAGE


def test_pixels_that_are_not_as_many_as_they_should_be_are_refused(
    model: Tiny, session: VisionSession, tmp_path: Path
) -> None:
    picture = stored(drawn(model, 2, 4), tmp_path / "a.rgb")
    (tmp_path / "a.rgb").write_bytes(b"short")
    with pytest.raises(PackError, match="has 5 bytes of pixels") as caught:
        session.look(ASK, [picture], 8, lambda _: None)
    assert caught.value.exit_code == ExitCode.INPUT
    assert session.image_tokens(2 * model.factor, 4 * model.factor) == 8  # it goes on


def test_the_encoder_is_found_by_its_name_and_refused_where_it_is_none(
    model: Tiny, tmp_path: Path
) -> None:
    settings = {"context": 64, "kv": "f16", "threads": 1}
    assert model_file(model.artifact).name == "model.gguf"
    decoder = (model.artifact / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(decoder)
    with pytest.raises(PackError, match=r"holds no mmproj\.gguf"):
        VisionSession(str(tmp_path), settings)
    whole = (model.artifact / "mmproj.gguf").read_bytes()
    for data in (b"GGUF" + bytes(60), decoder, whole[: len(whole) // 2]):
        (tmp_path / "mmproj.gguf").write_bytes(data)
        broken = VisionSession(str(tmp_path), settings)
        assert isinstance(broken, Protocol)
        with pytest.raises(PackError, match=r"cannot load mmproj\.gguf") as caught:
            broken.open_encoder()
        assert caught.value.exit_code == ExitCode.INPUT
        broken.close()
