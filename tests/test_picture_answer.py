"""The gate of what follows a picture: a text is expected as by the unquantized model, and pictures
get the published number of tokens at the published positions. Damage that no image embedding shows
is stopped."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.checkpoint import Checkpoint
from packager.errors import PackError
from packager.quality import picture_answer, picture_processor, pictures, thresholds, verdict
from packager.quality.embeddings import weights_of
from packager.records.quality import PictureQuality
from packager.reference.resize import bicubic
from packager.reference.seen import places
from packager.reference.tower import VisionTower
from packager.shape.tower import PREFIX
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import Silent

TRAINED = REPOSITORY / "tests" / "models" / "tiny-qwen3-vl"
SETTINGS: dict[str, Any] = {
    **{"context": 256, "kv": "f16", "threads": 1},
    **picture_processor.SETTINGS,
}
PARITY = {"texts": 1, "tokens": 5, "findings": []}
SIDE = 32
COLUMNS, ROWS = picture_answer.GRID
PICTURE = pictures.picture(COLUMNS * SIDE, ROWS * SIDE, 2)
UNEVEN = pictures.picture(330, 186, 2)
RESIZED = bicubic(UNEVEN, PICTURE.shape[1], PICTURE.shape[0])


@pytest.fixture(scope="module")
def wanted() -> picture_answer.Expected:
    source = Checkpoint.open(TRAINED)
    vision = source.vision()
    weights = weights_of(vision.tensors, PREFIX)
    tower = VisionTower(vision.tower, weights, vision.mean, vision.deviation)
    return picture_answer.expected(Silent(), source, tower, PICTURE, True)


def found(model: Any, wanted: picture_answer.Expected, own: bool = False) -> PictureQuality:
    said = picture_answer.own_answer(model, wanted, UNEVEN) if own else ()
    fields = picture_answer.compared(Silent(), model, wanted, PICTURE, said, RESIZED)
    return PictureQuality(**fields, **picture_processor.same(model, SIDE))


def passes(quality: PictureQuality, grade: str = "16-bit") -> bool:
    rows = (*picture_processor.rows(quality), *picture_answer.rows(quality, grade))
    assert len(rows) >= 3
    return all(row.passed for row in rows)


def one_axis(folder: Path) -> Path:
    """A copy of the checkpoint whose heads all turn by the time of a token, as text would."""
    shutil.copytree(TRAINED, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_parameters"]["mrope_section"] = [32, 0, 0]
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package's two files for llama.cpp."""
    from targets.gguf.convert import convert
    from targets.gguf.projector import convert_projector

    folder = tmp_path_factory.mktemp("files")
    convert(TRAINED, folder / "model.gguf", "BF16")
    convert_projector(TRAINED, folder / "mmproj.gguf", "F16", report=Silent())
    return folder


@pytest.mark.engine
def test_llama_cpp_goes_on_after_a_picture_as_the_unquantized_model_and_damage_is_stopped(
    files: Path, wanted: picture_answer.Expected, tmp_path: Path
) -> None:
    from targets.gguf.convert import convert
    from targets.llama_cpp.image_encoder import Chunk, ImageEncoder
    from targets.llama_cpp.vision import VisionSession

    class AnotherSize(VisionSession):
        """Takes rows of image tokens for columns."""

        def answer_logits(
            self, texts: tuple[str, str], picture: Mapping[str, Any], answer: Sequence[int]
        ) -> Any:
            turned = {**picture, "width": picture["height"], "height": picture["width"]}
            return super().answer_logits(texts, turned, answer)

    def shifted(self: ImageEncoder, chunk: Chunk) -> tuple[Any, float]:
        buffer, seconds = whole(self, chunk)
        moved = np.roll(self.array(buffer, chunk), 1, axis=0)
        ctypes.memmove(buffer, moved.ctypes.data, moved.nbytes)
        return buffer, seconds

    def shallow(self: ImageEncoder, chunk: Chunk) -> tuple[Any, float]:
        buffer, seconds = whole(self, chunk)
        cut = self.array(buffer, chunk)
        cut[:, cut.shape[1] // 3 :] = 0
        ctypes.memmove(buffer, cut.ctypes.data, cut.nbytes)
        return buffer, seconds

    whole = ImageEncoder.encode
    good = opened(VisionSession, files, wanted, own=True)
    assert passes(good) and (good.positions, good.token_counts, good.answer_own) == (1, 1, 1)
    assert not passes(opened(AnotherSize, files, wanted))
    with pytest.MonkeyPatch.context() as patch:
        for damage in (shifted, shallow):
            patch.setattr(ImageEncoder, "encode", damage)
            lost = opened(VisionSession, files, wanted)
            assert not passes(lost), (damage, lost)
    convert(one_axis(tmp_path / "checkpoint"), tmp_path / "model.gguf", "BF16")
    shutil.copy(files / "mmproj.gguf", tmp_path)
    assert not passes(opened(VisionSession, tmp_path, wanted), "2-bit")


def opened(
    kind: Callable[[str, dict[str, Any]], Any],
    artifact: Path,
    wanted: picture_answer.Expected,
    *,
    own: bool = False,
) -> PictureQuality:
    """The figures of an artifact by a session of that kind."""
    model = kind(str(artifact), SETTINGS)
    try:
        return found(model, wanted, own)
    finally:
        model.close()


@pytest.mark.engine
def test_openvino_goes_on_after_a_picture_as_the_unquantized_model_and_damage_is_stopped(
    wanted: picture_answer.Expected, tmp_path: Path
) -> None:
    from targets.openvino import light_vision
    from targets.openvino.scorer import SeeingScorer
    from targets.openvino.vision import VisionSession

    artifact = tmp_path / "artifact"
    light_vision.export(Silent(), TRAINED, None, artifact, 256, None)
    model = VisionSession(str(artifact), SETTINGS)
    whole = SeeingScorer.behind_picture

    def changed(how: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
        def fed(
            self: SeeingScorer, ids: Any, place: int, picture: Any, grid: tuple[int, int]
        ) -> Any:
            return whole(self, ids, place, *how(picture, grid))

        return fed

    def shallow(picture: Any, grid: Any) -> tuple[Any, Any]:
        return np.where(np.arange(picture.shape[1]) < picture.shape[1] // 3, picture, 0), grid

    damages: dict[str, Callable[..., tuple[Any, Any]]] = {
        "another picture's size": lambda picture, grid: (picture, grid[::-1]),
        "one axis": lambda picture, _: (picture, (1, len(picture))),
        "off by one": lambda picture, grid: (np.roll(picture, 1, axis=0), grid),
        "without DeepStack": shallow,
    }
    try:
        said = picture_answer.own_answer(model, wanted, UNEVEN)
        fields = picture_answer.compared(Silent(), model, wanted, PICTURE, said, RESIZED)
        good = PictureQuality(**fields, **picture_processor.same(model, SIDE))
        assert said and passes(good) and good.positions is None
        for name, how in damages.items():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SeeingScorer, "behind_picture", changed(how))
                lost = PictureQuality(
                    **picture_answer.compared(Silent(), model, wanted, PICTURE, said, RESIZED)
                )
            assert not all(row.passed for row in picture_answer.rows(lost, "16-bit")), (name, lost)
    finally:
        model.close()


def test_positions_go_on_after_the_longer_side_of_a_picture() -> None:
    assert places(2, 2, 3, 2).tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


class Placing:
    """What an engine says of sizes and positions, with what it gets wrong."""

    def __init__(self, more: int = 0, wrong: int = 0) -> None:
        self.more, self.wrong = more, wrong

    def image_tokens(self, width: int, height: int) -> int:
        limits = picture_processor.LEAST, picture_processor.MOST
        return picture_processor.published_tokens(width, height, SIDE, *limits) + self.more

    def image_places(self, columns: int, rows: int, _: int) -> Any:
        placed = places(0, rows, columns, 1)
        placed[1, 1] += self.wrong
        return placed


def test_another_number_of_tokens_or_another_position_misses_its_row() -> None:
    good_vectors = PictureQuality(pictures=2, tokens=10, cosine_mean=1.0, cosine_min=1.0)
    for engine, missed in (
        (Placing(), set()),
        (Placing(more=1), {"image_token_counts"}),
        (Placing(wrong=1), {"image_positions"}),
    ):
        fields = picture_processor.same(engine, SIDE)  # type: ignore[arg-type]
        rows = picture_processor.rows(PictureQuality(**fields))
        assert {row.rule for row in rows if not row.passed} == missed
        quality = good_vectors.but(**fields)
        facts: dict[str, Any] = {
            "parity": PARITY,
            "compare_seconds": 1.0,
            "pictures": quality.to_json(),
        }
        judged = verdict.judged(facts, None, "random", False)
        assert judged.passed is not bool(missed)
        if missed:
            with pytest.raises(PackError, match=r"image tokens .*% of at least 100%") as caught:
                verdict.check(judged)
            assert "tested version of the engine" in str(caught.value.hint)


def test_what_is_not_a_number_or_not_expected_misses_the_rows_of_the_answer() -> None:
    good = PictureQuality(
        answer_tokens=24, answer_broken=0, answer_kl_mean=0.001, answer_kl_max=0.01, answer_own=1.0
    )
    for quality, missed in (
        (good, set()),
        (good.but(answer_broken=1), {"kl_mean", "kl_max"}),
        (good.but(answer_kl_mean=None), {"kl_mean"}),
        (good.but(answer_kl_max=0.2), {"kl_max"}),
        (good.but(answer_own=0.875), {"own"}),
    ):
        rows = picture_answer.rows(quality, "16-bit")
        assert {row.rule for row in rows if not row.passed} == {
            f"image_answer_{rule}" for rule in missed
        }
    skipped = PictureQuality(answer_skipped="the weights are random")
    assert picture_answer.rows(skipped, "16-bit") == ()


def test_every_class_of_recipes_has_limits_and_more_bits_never_have_looser_ones() -> None:
    every = [picture_answer.limits(grade) for grade in thresholds.grades()]
    assert all(every) and picture_answer.limits(None) is None
    for rule in ("kl_mean", "kl_max"):
        values = [getattr(each, rule) for each in every]
        assert values == sorted(values)


def test_random_weights_are_not_asked_and_the_reason_is_kept(
    wanted: picture_answer.Expected,
) -> None:
    assert 8 <= len(wanted.answer) <= picture_answer.TOKENS and wanted.skipped is None
    none: Any = None
    random = picture_answer.expected(Silent(), none, none, PICTURE, False)
    fields = picture_answer.compared(Silent(), none, random, PICTURE)
    assert "random" in fields["answer_skipped"] and len(fields) == 1
    assert picture_answer.own_answer(none, random, PICTURE) == ()


def test_resizing_is_that_of_the_published_processor() -> None:
    image = pytest.importorskip("PIL.Image", reason="the second witness")
    for width, height in ((320, 192), (100, 61), (640, 500)):
        theirs = np.asarray(
            image.fromarray(UNEVEN).resize((width, height), image.Resampling.BICUBIC)
        )
        apart = np.abs(bicubic(UNEVEN, width, height).astype(int) - theirs)
        assert apart.max() <= 1 and apart.mean() < 0.01


@given(st.integers(28, 4000), st.integers(28, 4000))
def test_the_published_number_of_tokens_is_within_its_limits(width: int, height: int) -> None:
    assert picture_processor.published_tokens(width, height, 28, 16, 512) <= 512
