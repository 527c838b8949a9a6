"""An adapter that is damaged, more than LoRA, or of another base is refused with the difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.adapter import CONFIG, WEIGHTS, Adapter
from packager.checkpoint.composed import FILE, compose
from packager.checkpoint.patterns import compiled, most_steps, refuse_pattern
from packager.errors import ExitCode, PackError
from packager.limits import ADAPTER_BYTES, PATTERN_STEPS
from packager.sources import adapters as loras
from packager.sources import parse
from tests.support.adapters import QUERY, changed_weights, composed, low_rank
from tests.support.damage import edit_json
from tests.support.make_checkpoint import write_tiny


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "base")


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / CONFIG, **changes)


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _linked(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


A, B = f"base_model.model.{QUERY}.lora_A.weight", f"base_model.model.{QUERY}.lora_B.weight"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "has no adapter_config.json"),
    "a configuration without end": (
        lambda folder: (folder / CONFIG).write_text(" " * (1 << 20) + "{}") and None,
        "far more than a file of its kind",
    ),
    "a pickle": (_pickled, "can run any code"),
    "a link out of the folder": (_linked, "link out of its folder"),
    "a file cut short": (_cut, "not a whole safetensors file"),
    "another method": (_config(peft_type="LOHA"), "'LOHA'"),
    "experts as parameters": (_config(target_parameters=["mlp.experts"]), "target_parameters"),
    "single trained tokens": (_config(trainable_token_indices=[3]), "trainable_token_indices"),
    "a changed base": (_config(init_lora_weights="pissa_niter_4"), "changed base"),
    "no rank": (_config(r="4"), "give no scale"),
    "an infinite alpha": (_config(lora_alpha=float("inf")), "give no scale"),
    "an alpha that no float holds": (_config(lora_alpha=10**400), "give no scale"),
    "a rank that no float holds": (_config(rank_pattern={"x": 10**400}), "names to numbers"),
    "another rank than the matrices": (_config(r=3), "have the rank 2"),
    "a pattern that never ends": (_config(alpha_pattern={"(a+)+b": 1}), "too complex"),
    "a pattern that is none": (_config(rank_pattern={"(": 1}), "not a regular expression"),
    "a pattern without end by what may be left out": (
        _config(rank_pattern={"a?" * 60 + "a" * 60: 1}),
        "take too long",
    ),
    "a pattern without end by alternatives": (
        _config(alpha_pattern={"(a|a)" * 39 + "b": 1}),
        "take too long",
    ),
    "patterns without number": (
        _config(alpha_pattern={rf".*\.{number}\..*x": 1 for number in range(20_000)}),
        "more than 4096 patterns",
    ),
    "DoRA without magnitudes": (_config(use_dora=True), "use_dora"),
    "half a pair": (
        changed_weights(lambda tensors: tensors.pop(B)),
        "instead of lora_A and lora_B",
    ),
    "ranks that differ": (
        changed_weights(lambda tensors: tensors.update({B: np.ones((64, 3), np.float32)})),
        "cannot be multiplied",
    ),
    "packed numbers": (
        changed_weights(lambda tensors: tensors.update({A: np.ones((2, 64), np.int32)})),
        "stored as I32",
    ),
    "nothing": (changed_weights(lambda tensors: tensors.clear()), "holds no adapter"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_is_damaged_or_more_than_lora_is_refused(case: str, tmp_path: Path) -> None:
    damage, said = REFUSED[case]
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    damage(adapter)
    with pytest.raises(PackError) as caught:
        Adapter.open(adapter)
    assert said in str(caught.value)
    assert caught.value.exit_code is ExitCode.INPUT
    assert caught.value.hint


def test_patterns_that_people_write_take_few_steps_and_match_as_in_peft() -> None:
    module = "model.layers.11.self_attn.q_proj"
    for pattern, matches in (
        ("q_proj", True),
        (r"layers\.1\.self_attn\.q_proj", False),
        (r"^model\.layers\.11\.self_attn\.q_proj", True),
        (r".*layers\.(?:9|1[01])\..*_proj", True),
        (r"model\.layers\.\d+\.mlp\.(gate|up|down)_proj", False),
        ("[*+?|(]", False),
    ):
        refuse_pattern("here", pattern)
        assert bool(compiled(pattern).match(module)) is matches, pattern
        assert most_steps(pattern, len(module)) * 448 < PATTERN_STEPS, pattern


def test_a_repeated_group_is_refused_however_it_is_written() -> None:
    for pattern in ("(a+)+b", "(a+){9}", "(?x:(a+) +)b", "(?ix:(a+)#c\n+)b", "(?x-i:(a+)\t*)b"):
        with pytest.raises(PackError, match="too complex"):
            refuse_pattern("here", pattern)


def test_weights_far_larger_than_an_adapters_are_refused_unread(tmp_path: Path) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    with (adapter / WEIGHTS).open("ab") as file:
        file.truncate(ADAPTER_BYTES + 1)
    with pytest.raises(PackError, match="far more than a file of its kind"):
        Adapter.open(adapter)


STRANGERS = {
    "other sizes": ({QUERY: (64, 32)}, "is [64, 32] in the adapter and [64, 64] in the base"),
    "other layers": (
        {"model.layers.7.self_attn.q_proj": (64, 64)},
        "the base has no 'model.layers.7.self_attn.q_proj.weight'",
    ),
    "many": (
        {f"model.layers.{number}.mlp.w1": (64, 64) for number in range(5)},
        ", and 2 more",
    ),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_an_adapter_of_another_base_is_refused_with_the_difference(
    case: str, base: Path, tmp_path: Path
) -> None:
    parts, said = STRANGERS[case]
    adapter = low_rank(tmp_path / "one", parts, base_model_name_or_path="some/other")
    for refused in (
        lambda: composed(tmp_path / "m", base, Adapter.open(adapter)),
        lambda: loras.adapted(
            Checkpoint.open(base).shape, "local/base", loras.parse([str(adapter)])
        ),
    ):
        with pytest.raises(PackError) as caught:
            refused()
        assert said in str(caught.value)
        assert "'some/other'" in str(caught.value)
        assert caught.value.exit_code is ExitCode.INPUT


def test_an_adapter_that_names_another_variant_of_the_catalogue_or_another_commit_is_refused(
    tmp_path: Path,
) -> None:
    named = {"base_model_name_or_path": "Qwen/Qwen3-0.6B", "revision": "a" * 40}
    adapter = Adapter.open(low_rank(tmp_path / "one", {QUERY: (64, 64)}, **named))
    loras.refuse_other_base(adapter, "local/tiny", "b" * 40)
    loras.refuse_other_base(adapter, "Qwen/Qwen3-0.6B", "a" * 40)
    for repo_id, revision, said in (
        ("Qwen/Qwen3-1.7B", None, "was trained on Qwen/Qwen3-0.6B and not on Qwen/Qwen3-1.7B"),
        ("Qwen/Qwen3-0.6B", "b" * 40, "trained on commit a"),
    ):
        with pytest.raises(PackError, match=said) as caught:
            loras.refuse_other_base(adapter, repo_id, revision)
        assert caught.value.exit_code is ExitCode.INPUT


@pytest.mark.parametrize(
    "spec", ["nowhere", "./nowhere", "/no/where", "{}:zero", "{}:0", "{}:nan", "{}:1e999"]
)
def test_what_is_neither_a_folder_nor_a_repository_is_a_sentence(spec: str, tmp_path: Path) -> None:
    adapter = low_rank(tmp_path / "one", {QUERY: (64, 64)})
    with pytest.raises(PackError) as caught:
        loras.parse([spec.format(adapter)])
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(PackError, match="twice"):
        loras.parse([str(adapter), f"{adapter}:2"])


def test_a_folder_that_a_build_keeps_for_itself_is_not_taken_from_hand(
    base: Path, tmp_path: Path
) -> None:
    compose(tmp_path / "m", base, [])
    assert (tmp_path / "m" / FILE).is_file()
    with pytest.raises(PackError, match="--lora"):
        parse(str(tmp_path / "m"), "local/m")
