"""Checkpoints as people have them: the network that transformers loads, in the reference and in
every engine, or a true reason.

The ordinary run takes one case of each kind through the engines; QWEN_PACK_FIELD=all takes every
case, every recipe of a kind, and a sample of the grid (`make field`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.quantized import KEYS
from packager.errors import ExitCode, PackError
from packager.reference import Reference
from packager.shape import Shape
from targets import registry
from tests.conftest import REPOSITORY
from tests.support.field_cases import BY_SOME, TAKEN, Field
from tests.support.field_refusals import REFUSED
from tests.support.make_checkpoint import Silent
from tests.support.tiers import thorough
from tests.support.yardstick import divergence, grid, of_transformers
from tests.test_openvino_engine import finish

ALL = os.environ.get("QWEN_PACK_FIELD") == "all"
MOST = 0.001
"""Nats per token that 16 bits may lose."""
LOSSES = {"16-bit": 0.002, "8-bit": 0.03, "6-bit": 0.1, "5-bit": 0.3, "4-bit": 1.0}
"""Nats per token that weights of so many bits may lose of a small model: far below what NaN or
zeros would."""
CONTEXT = 512
IDS = np.random.default_rng(5).integers(0, 2022, 160).tolist()

COMPUTED = TAKEN | {name: case for name, (case, _) in BY_SOME.items()}
SHOWN = (
    "as it is",
    "tied, yet different",
    "layer 1 F32, last norm F64",
    "yarn, attention_factor",
    "llama3",
    "sliding window by layer",
)
"""What every engine converts in a way of its own; the others are read alike for all."""
ALSO = (
    "tied, stored again",
    "F32",
    "no model. in front",
    "stale quantization_config",
    "index misses the tied copy",
    "yarn",
    "yarn beside rope_parameters",
    "torch_dtype auto",
    "longrope",
    "yarn, betas",
    "sliding window",
)
NO_NUMBERS = ("NaN", "infinity in one number")
"""What every engine refuses by the tensor's name, whatever it converts."""
NO_OTHERS = ("NaN in a norm", "NaN in a trained output matrix", "infinity in float64")


class Engine(NamedTuple):
    """A recipe that quantizes nothing."""

    weights: str
    kv: str


ENGINES = {
    "llama.cpp": Engine("BF16", "f16"),
    "openvino": Engine("bf16", "f16"),
    "onnxruntime": Engine("fp32", "f32"),
}


def field_of(name: str) -> Field:
    field = Field()
    COMPUTED[name](field)
    return field


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("field")
    for number, name in enumerate(COMPUTED):
        field_of(name).save(home / str(number))
    return home


@pytest.fixture(scope="module")
def truth(home: Path) -> Callable[[str], np.ndarray[Any, Any]]:
    """A function from a case to what transformers says of it; every case is loaded once."""
    found: dict[str, np.ndarray[Any, Any]] = {}

    def of(name: str) -> np.ndarray[Any, Any]:
        if name not in found:
            [found[name]] = of_transformers(unquantized(folder(home, name)), [IDS])
        return found[name]

    return of


def unquantized(checkpoint: Path) -> Path:
    """Without a stale quantization_config, by which transformers would quantize."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    if not any(key in config for key in KEYS):
        return checkpoint
    copy = shutil.copytree(checkpoint, checkpoint.with_name(f"{checkpoint.name}-unquantized"))
    kept = {key: value for key, value in config.items() if key not in KEYS}
    (copy / "config.json").write_text(json.dumps(kept))
    return copy


def folder(home: Path, name: str) -> Path:
    return home / str(list(COMPUTED).index(name))


@pytest.mark.engine
@pytest.mark.thorough(
    "test_the_reference_is_what_transformers_computes_at_every_point_of_the_grid",
    "test_every_engine_says_what_transformers_says_or_refuses_before_it_converts",
)
def test_the_reference_says_of_every_case_what_transformers_says(
    home: Path, truth: Callable[[str], Any]
) -> None:
    lost = {}
    for name in COMPUTED:
        found = Reference.compute(Checkpoint.open(folder(home, name)), [IDS], Silent()).logits(0)
        lost[name] = divergence(truth(name), found)
    assert {name: value for name, value in lost.items() if not value < 1e-6} == {}
    # What is different must show, or the test shows nothing.
    plain = truth("as it is")
    for name in (
        "tied, yet different",
        "linear",
        "yarn",
        "llama3",
        "sliding window",
        "longrope",
        "yarn, attention_factor",
    ):
        assert divergence(plain, truth(name)) > MOST, name
    plain = truth("plain, true numbers")
    for name in COMPUTED:
        if name.startswith("yarn, true numbers"):
            assert divergence(plain, truth(name)) > 50 * MOST, name


@pytest.mark.engine
@pytest.mark.parametrize(
    ("shown", "refused"),
    [(SHOWN, NO_NUMBERS), thorough(ALSO, NO_OTHERS)],
    ids=["of each kind", "others"],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_says_what_transformers_says_or_refuses_before_it_converts(
    engine: str,
    shown: tuple[str, ...],
    refused: tuple[str, ...],
    home: Path,
    truth: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    names = [name for name in COMPUTED if name not in SHOWN] if ALL and shown == ALSO else shown
    checkpoints = {name: str(folder(home, name)) for name in names}
    for number, name in enumerate(refused):
        field = Field()
        REFUSED[name][0](field)
        checkpoints[name] = str(field.save(tmp_path / f"no numbers {number}"))
    arguments = {
        "checkpoints": checkpoints,
        "ids": dict.fromkeys(names, tuple(IDS)),
        "context": CONTEXT,
        "out": str(tmp_path),
    }
    found = finish(
        "tests.support.field_jobs:say",
        tmp_path / "log",
        runtime=engine,
        **ENGINES[engine]._asdict(),
        **arguments,
    )[0].value
    wrong = {}
    for name in names:
        refuses = name in BY_SOME and engine not in BY_SOME[name][1]
        if refuses != ("message" in found[name]):
            wrong[name] = found[name]
        elif refuses:
            assert (
                found[name]["exit_code"] == ExitCode.INPUT
                and "does not compute for Qwen" in found[name]["message"]
            ), name
        elif not (lost := divergence(truth(name), np.load(found[name]["logits"]))) < MOST:
            wrong[name] = lost
    for name in refused:
        told = found[name].get("message", ""), found[name].get("exit_code")
        if REFUSED[name][1] not in told[0] or told[1] != ExitCode.INPUT:
            wrong[name] = found[name]
    assert wrong == {}


@pytest.mark.engine
@pytest.mark.skipif(
    not ALL, reason="make field: every tenth point of the grid through every engine"
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_sample_of_the_grid_comes_out_of_every_engine_as_it_is_or_is_refused(
    engine: str, tmp_path: Path
) -> None:
    adapter = registry.runtime(engine)
    recipe = adapter.recipe(*ENGINES[engine])
    cases = {str(case): case for case in list(grid())[::10]}
    built = {}
    for number, (name, case) in enumerate(cases.items()):
        checkpoint = case.write(tmp_path / str(number))
        if adapter.obstacle(Shape.from_config(case.config(), "config.json"), recipe) is None:
            built[name] = str(checkpoint)
    assert built
    ids = {name: cases[name].ids()[1][:60] for name in built}
    arguments = {"checkpoints": built, "ids": ids, "context": 64, "out": str(tmp_path / "out")}
    found = finish(
        "tests.support.field_jobs:say",
        tmp_path / "log",
        runtime=engine,
        **ENGINES[engine]._asdict(),
        **arguments,
    )[0].value
    wrong = {}
    for name, said in found.items():
        if "message" in said:
            if "comput" not in said["message"]:
                wrong[name] = said["message"]
            continue
        [expected] = of_transformers(Path(built[name]), [ids[name]])
        # Random weights of large logits: 16 bits lose ten times as much of them as of a trained
        # model, and the recurrence of the hybrids five times that, whatever the positions.
        most = 50 * MOST if cases[name].shape.hybrid else 10 * MOST
        if not (lost := divergence(expected, np.load(said["logits"]))) < most:
            wrong[name] = lost
    assert wrong == {}


@pytest.mark.engine
@pytest.mark.parametrize("engine", ENGINES)
def test_every_stored_type_goes_through_every_recipe(
    engine: str, home: Path, truth: Callable[[str], Any], tmp_path: Path
) -> None:
    """The ordinary run takes one recipe of each number of bits, and the mixture of all types."""
    grades: dict[str, str] = {}
    for recipe in registry.runtime(engine).recipes():
        # Fewer than 4 bits take an importance matrix.
        if recipe.provider in (None, "cpu") and int(recipe.grade.partition("-")[0]) >= 4:
            grades[recipe.weights] = recipe.grade
    if not ALL:
        grades = {
            weights: grade
            for grade, weights in {grade: weights for weights, grade in grades.items()}.items()
        }
    stored = (
        ("F32", "F16", "F64", "norms F32", "layer 1 F32, last norm F64")
        if ALL
        else ("layer 1 F32, last norm F64",)
    )
    found = finish(
        "tests.support.field_jobs:say_by_recipe",
        tmp_path / "log",
        runtime=engine,
        recipes=list(grades),
        checkpoints={name: str(folder(home, name)) for name in stored},
        ids=dict.fromkeys(stored, tuple(IDS)),
        context=CONTEXT,
        out=str(tmp_path / "out"),
    )[0].value
    wrong: dict[tuple[str, str], Any] = {}
    for weights, grade in grades.items():
        for name, said in found[weights].items():
            if "message" in said:
                wrong[weights, name] = said["message"]
                continue
            lost = divergence(truth(name), np.load(said["logits"]))
            if not lost < LOSSES.get(grade, LOSSES["4-bit"]):
                wrong[weights, name] = lost
    assert found.keys() == grades.keys() and wrong == {}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_refused_with_the_true_reason(name: str, tmp_path: Path) -> None:
    case, said = REFUSED[name]
    field = Field()
    case(field)
    made = field.save(tmp_path / "checkpoint")
    with pytest.raises(PackError) as refused:
        from packager.checkpoint.numbers import check_all_finite

        check_all_finite(Checkpoint.open(made))
    assert said in f"{refused.value} {refused.value.hint}"
    assert refused.value.exit_code == ExitCode.INPUT and refused.value.hint


def test_a_folder_of_the_hubs_cache_is_refused_with_the_snapshot_in_it(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Tiny" / "snapshots" / ("a" * 40)
    Field().save(snapshot)
    with pytest.raises(PackError) as refused:
        Checkpoint.open(tmp_path / "models--Qwen--Tiny")
    assert str(snapshot) in refused.value.hint
    assert Checkpoint.open(snapshot).shape.layers == 4


def test_the_log_names_every_case() -> None:
    log = (REPOSITORY / "docs" / "field.md").read_text("utf-8")
    assert [name for name in (*COMPUTED, *REFUSED) if f"`{name}`" not in log] == []
