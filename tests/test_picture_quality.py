"""The gate of image embeddings: what a good encoder keeps, what damage costs, and what becomes of
that in a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.errors import ExitCode, PackError
from packager.quality import embeddings, picture_limits, pictures, verdict
from packager.records.quality import PictureQuality
from targets.llama_cpp.vision import VisionSession
from tests.support.make_checkpoint import Silent
from tests.support.tiny_vision import Tiny, tiny, write_projector
from tests.test_reference_tower import reference_of

SETTINGS = {"context": 64, "kv": "f16", "threads": 1}
SIXTEEN, EIGHT = picture_limits.limits("16-bit"), picture_limits.limits("8-bit")
PARITY = {"texts": 1, "tokens": 5, "findings": []}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    pytest.importorskip("transformers", reason="makes the models")
    pytest.importorskip("torch", reason="makes the models")
    return {
        family: tiny(family, tmp_path_factory.mktemp(family))
        for family in ("qwen2_5_vl", "qwen3_vl")
    }


class Kept:
    """The reference, computed once for each picture of a model."""

    def __init__(self, model: Tiny) -> None:
        self._tower, self._known = reference_of(model), dict[tuple[int, ...], Any]()

    def embed(self, pixels: Any) -> Any:
        if pixels.shape not in self._known:
            self._known[pixels.shape] = self._tower.embed(pixels)
        return self._known[pixels.shape]


REFERENCES: dict[str, Any] = {}


def lost(model: Tiny, folder: Path, kind: str = "f16", **damage: Any) -> PictureQuality:
    """The figures of an encoder that was written anew, with damage."""
    folder.mkdir()
    (folder / "model.gguf").symlink_to(model.artifact / "model.gguf")
    damaged = damage.pop("weights", None)
    write_projector(
        model.model,
        model.family,
        folder / "mmproj.gguf",
        model.mean,
        model.std,
        kind,
        damage=damaged,
        **damage,
    )
    session = VisionSession(str(folder), SETTINGS)
    try:
        reference = REFERENCES.setdefault(model.family, Kept(model))
        return pictures.lost(Silent(), session, reference, model.factor)
    finally:
        session.close()


def passes(found: PictureQuality, limits: picture_limits.PictureLimits | None) -> bool:
    assert limits is not None
    return all(row.passed for row in embeddings.rows(found, limits, "image"))


@pytest.mark.engine
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_whole_encoders_pass_and_damaged_ones_do_not(
    family: str, models: dict[str, Tiny], tmp_path: Path
) -> None:
    model = models[family]
    good = lost(model, tmp_path / "good")
    assert passes(good, SIXTEEN) and good.tokens > 400 and good.broken == 0
    eight = lost(model, tmp_path / "eight", "q8_0")
    assert passes(eight, EIGHT) and eight.cosine_min != good.cosine_min

    def changed(end: str, how: Any) -> Any:
        return lambda label, values: how(values) if label.endswith(end) else values

    damages = {
        "channels in the wrong order": changed("patch_embd.weight", lambda v: v[:, ::-1]),
        "a patch turned": changed("patch_embd.weight", lambda v: v.swapaxes(2, 3)),
        "patches merged in another order": changed(
            "mm.0.weight",
            lambda v: v.reshape(len(v), 4, -1)[:, [0, 2, 1, 3]].reshape(v.shape),
        ),
        "a layer without its attention": changed("blk.1.attn_out.weight", np.zeros_like),
        "a merger that was lost": changed("mm.2.weight", np.zeros_like),
    }
    if family == "qwen3_vl":
        damages["a vector of DeepStack that is missing"] = changed(
            "deepstack.2.fc2.weight", np.zeros_like
        )
    for number, (name, how) in enumerate(damages.items()):
        found = lost(model, tmp_path / str(number), weights=how)
        assert not passes(found, EIGHT), (name, found)
    broken = lost(model, tmp_path / "nan", weights=changed("mm.2.bias", lambda v: v * np.nan))
    assert broken.broken == broken.tokens
    assert not passes(broken, EIGHT)


@pytest.mark.engine
def test_an_encoder_of_fewer_layers_is_stopped(models: dict[str, Tiny], tmp_path: Path) -> None:
    """It loads: nothing in the file says how many there were."""
    found = lost(models["qwen2_5_vl"], tmp_path / "cut", layers=3)
    assert not passes(found, EIGHT)


@pytest.mark.engine
def test_an_encoder_without_its_deepstack_does_not_load(
    models: dict[str, Tiny], tmp_path: Path
) -> None:
    """The decoder takes three vectors of a token, and it has one."""
    with pytest.raises(PackError, match="mismatch") as caught:
        lost(
            models["qwen3_vl"],
            tmp_path / "none",
            weights=lambda label, values: None if "deepstack" in label else values,
        )
    assert caught.value.exit_code == ExitCode.INPUT


def test_pictures_are_judged_beside_the_text_also_where_that_is_not_compared() -> None:
    good = PictureQuality(pictures=2, tokens=10, cosine_mean=0.9999, cosine_min=0.9995)
    bad = good.but(cosine_min=0.5)
    facts = {"parity": PARITY, "tower_grade": "8-bit", "compare_seconds": 1.0}
    passed = verdict.judged({**facts, "pictures": good.to_json()}, None, "random", False)
    assert passed.passed and passed.pictures == good and passed.skipped == "random"
    verdict.check(passed)
    failed = verdict.judged({**facts, "pictures": bad.to_json()}, None, "random", False)
    assert failed.passed is False
    with pytest.raises(PackError, match=r"least cosine of image embeddings 0\.5000 of at least"):
        verdict.check(failed)
    allowed = verdict.judged({**facts, "pictures": bad.to_json()}, None, "random", True)
    assert allowed.loss_allowed and allowed.passed is False
    verdict.check(allowed)
    without = verdict.judged(facts, None, "random", False)
    assert without.pictures is None and without.verdicts == ()


def test_limits_are_checked_as_they_are_read(tmp_path: Path) -> None:
    assert picture_limits.grades() == ("16-bit", "8-bit")
    for number, (text, word) in enumerate(
        (
            ("", "classes is needed"),
            ("[classes.x]\ncosine_mean = 0.9", "needs exactly cosine_mean, cosine_min"),
            ("[classes.x]\ncosine_mean = 2.0\ncosine_min = 0.9", "x.cosine_mean is not a number"),
            ("[classes", "Expected"),
        )
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        with pytest.raises(PackError, match=word):
            picture_limits.grades(path)
