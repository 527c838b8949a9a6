"""Pictures through OpenVINO: the graphs of every family beside transformers and the numpy
reference, VLMPipeline's own answers, limits of pixels, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.process import JobResult
from packager.shape import Shape
from packager.shape.axes import axes_of
from targets.openvino import OpenVino, tower_sizes
from targets.openvino.data import compression_of
from targets.openvino.pixels import Limits, read
from tests.support.tiers import thorough
from tests.support.tiny_vision import Tiny
from tests.support.vision import SHAPES

ASK = ["<|im_start|>user\n", "what is this?<|im_end|>\n<|im_start|>assistant\n"]
SETTINGS: dict[str, Any] = {"context": 512, "kv": "f16", "threads": 1}
FAMILIES = ["qwen3_vl", thorough("qwen2_vl"), thorough("qwen2_5_vl")]


class TestSizes:
    def test_a_picture_is_resized_to_whole_tokens_within_the_limits(self) -> None:
        limits = Limits(4 * 28**2, 1024 * 28**2, 28)
        for given, resized in (
            ((448, 448), (448, 448)),
            ((450, 440), (448, 448)),
            ((14, 14), (56, 56)),
            ((1, 90), (28, 532)),
            ((4032, 3024), (1008, 756)),
        ):
            assert limits.resized(*given) == resized, given
            assert limits.tokens(*given) == resized[0] * resized[1] // 28**2
        assert limits.but(None, 64).tokens(4032, 3024) <= 64
        assert limits.but(100, None).tokens(28, 28) >= 100
        # The most counts, and leaves room for smaller ones.
        assert limits.but(100, 64) == Limits(4 * 28**2, 64 * 28**2, 28)
        for width, height in ((1, 201), (30, 4000)):
            with pytest.raises(PackError) as caught:
                limits.but(None, 16).resized(width, height)
            assert caught.value.exit_code == ExitCode.USAGE

    def test_a_file_of_limits_that_nobody_built_is_refused_before_an_engine_reads_it(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "preprocessor_config.json"
        good: dict[str, Any] = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
        good |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
        good |= {"min_pixels": 65_536, "max_pixels": 524_288}
        file.write_text(json.dumps(good))
        assert read(tmp_path)[0] == Limits(65_536, 524_288, 32)
        damaged: list[dict[str, Any]] = [
            *({"patch_size": size} for size in (0, -16, None, "16", 1 << 40)),
            *({"merge_size": size} for size in (0, 1, True)),
            {"temporal_patch_size": 0},
            *({"image_mean": mean} for mean in (0.5, [0.5], [0.5] * 4, [math.nan] * 3)),
            *({"image_std": [0.5, 0.5, part]} for part in (0, -1, math.inf, None, "1")),
            *({"max_pixels": most} for most in (0, 65_535, 1e6, 10**400)),
            {"min_pixels": -1},
        ]
        for wrong in damaged:
            file.write_text(json.dumps({**good, **wrong}))
            with pytest.raises(PackError, match=r"preprocessor_config\.json") as caught:
                read(tmp_path)
            assert caught.value.exit_code == ExitCode.INPUT, wrong

    def test_the_embedding_beside_the_decoder_has_eight_bits_also_where_its_output_has_four(
        self,
    ) -> None:
        shape = SHAPES["qwen3_vl"]
        rows, columns = shape.decoder.vocab, shape.decoder.hidden
        for recipe, each in (("bf16", 0), ("int8_sym", 2), ("int8_asym", 3)):
            known = tower_sizes.beside(shape, compression_of(OpenVino().recipe(recipe)))
            assert known.embedding == rows * (columns + each if each else 2 * columns), recipe
        for recipe in ("int4_asym_g64", "int4_asym_g64_head4"):
            again = tower_sizes.beside(shape, compression_of(OpenVino().recipe(recipe)))
            assert again == known, recipe

    def test_pairs_are_shared_out_one_behind_the_other_or_in_turns(self) -> None:
        second, third = (replace(SHAPES[kind], head_dim=16) for kind in ("qwen2_vl", "qwen3_vl"))

        def axes(shape: Shape, section: Any) -> tuple[int, ...]:
            table = {"rope_type": "default", "mrope_section": section}
            return axes_of({"rope_parameters": table}, shape, "config.json")

        assert axes(second, [2, 3, 3]) == (0, 0, 1, 1, 1, 2, 2, 2)
        assert axes(third, [4, 2, 2]) == (0, 1, 2, 0, 1, 2, 0, 0)
        assert axes_of({}, second, "config.json") == (0, 0, 1, 1, 1, 2, 2, 2)
        for section in ([2, 3], [2, 3, 4], [8, "0", 0], [9, -1, 0]):
            with pytest.raises(PackError, match="mrope_section is") as caught:
                axes(second, section)
            assert caught.value.exit_code == ExitCode.INPUT


class TestRefusals:
    def test_what_cannot_be_built_with_a_tower_is_refused_with_the_reason(self) -> None:
        runtime = OpenVino()
        for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
            for recipe in ("bf16", "int8_asym", "int4_sym_g128"):
                assert runtime.obstacle(SHAPES[kind], runtime.recipe(recipe)) is None
        for kind, recipe, reason in (
            ("qwen3_vl_moe", "bf16", "takes pictures of qwen2_vl, qwen2_5_vl, qwen3_vl here"),
            ("qwen3_5", "bf16", "this one is qwen3_5"),
            ("qwen2_5_omni", "bf16", "this one is qwen2_5_omni"),
            ("qwen3_vl", "q8_0", "keeps ggml's blocks"),
        ):
            found = runtime.obstacle(SHAPES[kind], runtime.recipe(recipe))
            assert found is not None and reason in found, kind
        assert runtime.adapter_obstacle({}, "text") is None
        assert "takes pictures" in (runtime.adapter_obstacle({}, "vision") or "")
        repacking = runtime.with_repack(128)
        found = repacking.obstacle(SHAPES["qwen3_vl"], repacking.recipe("int4_asym_g128"))
        assert found is not None and "--repack" in found


def drawn(model: Tiny, rows: int, columns: int, *, turn: int = 0) -> np.ndarray[Any, Any]:
    """A picture that no engine resizes: slopes of red and green, and blue squares."""
    height, width = rows * model.factor, columns * model.factor
    y, x = np.mgrid[0:height, 0:width]
    squares = ((x // 9 + y // 7) % 2) * 200
    channels = [x * 255 // width, y * 255 // height, squares]
    return np.stack(channels[turn:] + channels[:turn], -1).astype(np.uint8)


def given(rgb: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"data": rgb.tobytes(), "width": rgb.shape[1], "height": rgb.shape[0]}


def cosine(ours: Any, theirs: Any) -> float:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / norms).min())


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    pytest.importorskip("transformers", reason="the second witness of every answer")
    pytest.importorskip("torch", reason="the second witness of every answer")
    from tests.support.seeing_checkpoint import write_checkpoint
    from tests.support.tiny_vision import tiny

    home = tmp_path_factory.mktemp(request.param)
    made = tiny(request.param, home / "tiny")
    write_checkpoint(made, home / "checkpoint")
    return made


def built(model: Tiny, recipe: str, out: Path, **inputs: Any) -> Path:
    """The artifact, as a build makes it."""
    from dataclasses import asdict

    from tests.support.child_jobs import finish

    result, _ = finish(
        OpenVino.build_job,
        out.with_suffix(".log"),
        checkpoint=str(model.artifact.parents[1] / "checkpoint"),
        recipe={**asdict(OpenVino().recipe(recipe)), "inputs": {"modality": "vision", **inputs}},
        workload={"context": 512},
        out=str(out),
    )
    assert isinstance(result, JobResult)
    return out


@pytest.fixture(scope="module")
def artifact(model: Tiny) -> Path:
    return built(model, "bf16", model.artifact.parents[1] / "artifact")


@pytest.fixture(scope="module")
def session(artifact: Path) -> Iterator[Any]:
    from targets.openvino.vision import VisionSession

    loaded = VisionSession(str(artifact), SETTINGS)
    yield loaded
    loaded.close()


@pytest.mark.engine
def test_answers_about_pictures_are_those_of_transformers(model: Tiny, session: Any) -> None:
    """One wide and one tall, so that neither the grid nor the positions after it are square; the
    second is more than the engine reads of a prompt at once."""
    for turn, (rows, columns) in enumerate(((4, 6), (18, 16))):
        rgb = drawn(model, rows, columns, turn=turn)
        told: list[int] = []
        seen = session.look(ASK, [given(rgb)], 6, told.append, stop=False)
        ids = [
            *session.encode(ASK[0] + "<|vision_start|>"),
            *[model.image_id] * (rows * columns),
            *session.encode("<|vision_end|>" + ASK[1]),
        ]
        assert (seen.prompt_tokens, seen.image_tokens) == (len(ids), rows * columns)
        assert seen.encode_s > 0
        assert seen.tokens == told == model.answer(ids, rgb, 6)
    with pytest.raises(PackError, match="pictures take 484 of them"):
        side = 22 * model.factor
        session.look(ASK, [{"path": "never read", "width": side, "height": side}], 8, told.append)
    video = "<|vision_start|><|video_pad|><|vision_end|>"
    for written in ("<ov_genai_image_", video, "<|vision_start|>", "<|image_pad|>"):
        with pytest.raises(PackError, match=re.escape(f"writes {written} itself")):
            session.look(["", f"{written}?"], [given(rgb)], 2, told.append)
    with pytest.raises(PackError, match="itself"):
        session.generate(session.encode(video), 2, told.append)


@pytest.mark.engine
def test_the_graphs_of_the_tower_and_the_decoder_are_those_of_both_witnesses(
    model: Tiny, session: Any, artifact: Path
) -> None:
    import torch

    from targets.openvino.scorer import SeeingScorer
    from tests.test_reference_tower import reference_of

    # Before the tower is opened by itself: text alone is answered by the same pipeline.
    ids = session.encode("".join(ASK))
    text = session.generate(ids, 4, lambda _: None, stop=False)
    rgb = drawn(model, 4, 6)
    ours, theirs = session.embed_image(given(rgb)), model.embeddings(rgb)
    assert ours.shape == theirs.shape and cosine(ours, theirs) > 0.9995
    assert cosine(ours, reference_of(model).embed(rgb)) > 0.9995
    assert session.encode_image(given(rgb)) > 0
    swapped = session.embed_image(given(np.ascontiguousarray(rgb[..., ::-1])))
    assert cosine(ours, swapped) < 0.99
    scorer = SeeingScorer(artifact, SETTINGS)
    logits = np.concatenate([block.copy() for block in scorer.logits(ids)])
    whole = torch.tensor([ids])
    with torch.no_grad():
        exact = model.model(input_ids=whole, **model.kinds(whole)).logits[0].numpy()
    assert np.abs(logits[:, : exact.shape[1]] - exact).max() < 0.05 * np.abs(exact).max()
    assert int(logits[-1].argmax()) == text[0]


@pytest.mark.engine
def test_bytes_are_those_of_the_files_and_limits_those_of_the_workload(
    model: Tiny, artifact: Path
) -> None:
    from packager.checkpoint import Checkpoint
    from targets.openvino.seeing import EMBEDDINGS
    from targets.openvino.vision import VisionSession

    source = Checkpoint.open(model.artifact.parents[1] / "checkpoint")
    shape = source.shape.seeing(source.vision().tower, 64)
    weights = {path.stem: path.stat().st_size for path in artifact.glob("openvino_*.bin")}
    known = tower_sizes.beside(shape, None)
    assert weights[Path(EMBEDDINGS).stem] == pytest.approx(known.embedding, abs=64)
    # Equal vectors are stored once, and constants of shapes stand beside them.
    vision = sum(size for name, size in weights.items() if "vision" in name)
    assert vision == pytest.approx(known.tower, abs=9000)
    whole = sum(path.stat().st_size for path in artifact.iterdir())
    assert OpenVino().artifact_bytes(shape, OpenVino().recipe("bf16")) == pytest.approx(
        whole, rel=0.1
    )
    small = VisionSession(str(artifact), {**SETTINGS, "image_max_tokens": 12})
    try:
        side = 8 * model.factor
        assert small.image_tokens(side, side) <= 12
        seen = small.look(ASK, [given(drawn(model, 8, 8))], 2, lambda _: None, stop=False)
        assert seen.image_tokens <= 12
        with pytest.raises(PackError, match="No picture takes 64 tokens"):
            small.image_side(64)
    finally:
        small.close()


@pytest.mark.thorough("test_bytes_are_those_of_the_files_and_limits_those_of_the_workload")
@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["int8_asym", "int4_asym_g64", "int4_asym_g64_head4"])
def test_a_compressed_tower_has_eight_bits_to_the_byte(
    model: Tiny, tmp_path: Path, recipe: str
) -> None:
    from packager.checkpoint import Checkpoint
    from targets.openvino.seeing import EMBEDDINGS
    from targets.openvino.vision import VisionSession

    out = built(model, recipe, tmp_path / recipe, image_max_tokens=64)
    source = Checkpoint.open(model.artifact.parents[1] / "checkpoint")
    shape = source.shape.seeing(source.vision().tower, 64)
    known = tower_sizes.beside(shape, compression_of(OpenVino().recipe(recipe)))
    vision = sum(path.stat().st_size for path in out.glob("openvino_vision*.bin"))
    assert vision == pytest.approx(known.tower, abs=9000)
    embedding = (out / EMBEDDINGS).with_suffix(".bin").stat().st_size
    assert embedding == pytest.approx(known.embedding, abs=64)
    assert vision < 0.6 * 2 * sum(np.prod(size) for _, size in source.vision().tower.tensors())
    loaded = VisionSession(str(out), SETTINGS)
    try:
        rgb = drawn(model, 4, 6)
        assert cosine(loaded.embed_image(given(rgb)), model.embeddings(rgb)) > 0.995
        assert loaded.image_tokens(4000, 3000) <= 64
    finally:
        loaded.close()
