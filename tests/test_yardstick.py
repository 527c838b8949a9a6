"""The yardstick of every artifact, the numpy reference, against transformers over the whole grid;
and the keys of config.json."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.checkpoint import Checkpoint
from packager.checkpoint.rewrite import rewrite
from packager.errors import ExitCode, PackError
from packager.reference import Reference
from packager.reference.rope import frequencies
from packager.shape import Shape
from packager.shape.keys import check_keys, keys
from packager.shape.names import NAMINGS
from packager.shape.positions import KINDS, positions_of
from tests.support import config_keys_of_transformers as listed
from tests.support.make_checkpoint import Silent, write_tiny
from tests.support.shapes import QWEN3, QWEN3_NEXT
from tests.support.tiers import thorough
from tests.support.yardstick import (
    GENERATIONS,
    POSITIONS,
    TIES,
    WINDOWS,
    Case,
    divergence,
    grid,
    of_transformers,
    write,
)

MOST = 5e-4
"""Largest difference of two logits as a share of the largest logit.

float32 in another order of sums gives 1e-6, and 1.4e-4 through the recurrences of the hybrids; a
mistake gives 1e-2 and more.
"""


def difference(case: Case, folder: Path) -> float:
    """The largest difference between the reference and transformers at one point of the grid."""
    checkpoint = case.write(folder)
    found = Reference.compute(Checkpoint.open(checkpoint), case.ids(), Silent())
    expected = of_transformers(checkpoint, case.ids())
    assert min(float(np.abs(theirs).max()) for theirs in expected) > 1, "weights that say something"
    return max(
        float(np.abs(found.logits(place) - theirs).max() / np.abs(theirs).max())
        for place, theirs in enumerate(expected)
    )


@pytest.mark.engine
@pytest.mark.parametrize("places", [slice(None, None, 3), thorough(None)], ids=["third", "rest"])
@pytest.mark.parametrize(
    "generation",
    [name if name in ("qwen2", "qwen3", "qwen3_5_moe") else thorough(name) for name in GENERATIONS],
)
def test_the_reference_is_what_transformers_computes_at_every_point_of_the_grid(
    generation: str, places: slice | None, tmp_path: Path
) -> None:
    """Every third point of the grid, or all others."""
    cases = [case for case in grid() if case.generation == generation]
    if places is None:
        cases = [case for number, case in enumerate(cases) if number % 3]
    else:
        cases = cases[places]
    found = {str(case): difference(case, tmp_path / str(case.number)) for case in cases}
    assert {name: worst for name, worst in found.items() if not worst < MOST} == {}


def test_the_grid_has_three_hundred_points_and_more() -> None:
    assert len(list(grid())) >= 300


def test_the_grid_lets_every_generation_meet_all_positions_ties_and_windows() -> None:
    cases = list(grid())
    for generation in GENERATIONS:
        met = [case for case in cases if case.generation == generation]
        assert {case.positions for case in met} == set(POSITIONS)
        assert {case.tie for case in met} == set(TIES)
        assert {case.window for case in met} == set(WINDOWS)
    types = Counter((case.dtype, case.tie) for case in cases)
    assert len(types) == 21 and min(types.values()) > 5


@pytest.mark.engine
def test_the_first_generation_is_the_qwen2_that_transformers_computes_from_its_rewritten_form(
    tmp_path: Path,
) -> None:
    shape = Shape("qwen", 64, 2, 2, 2, 32, 128, 1024, False, True, False, 2048, 10_000.0)
    source = Checkpoint.open(write_tiny(tmp_path / "qwen", shape=shape))
    ids = np.random.default_rng(3).integers(0, 1000, 60).tolist()
    found = Reference.compute(source, [ids], Silent()).logits(0)
    [expected] = of_transformers(rewrite(Silent(), source, tmp_path / "qwen2").folder, [ids])
    assert divergence(expected, found) < 1e-9
    assert np.abs(found - expected).max() < MOST * np.abs(expected).max()


class TestKeysOfConfigJson:
    def test_every_key_that_transformers_reads_is_one_that_is_known_here_or_refused(self) -> None:
        data = keys()
        unknown = {
            decoder: sorted(read - data.known - set(data.only))
            for decoder, read in data.read.items()
        }
        assert not any(unknown.values()), unknown
        assert set(data.read) == {naming.decoder for naming in NAMINGS.values()}

    @pytest.mark.engine
    def test_the_list_of_keys_is_that_of_the_installed_transformers(self) -> None:
        transformers = pytest.importorskip("transformers")
        if transformers.__version__ != keys().version:
            pytest.skip(
                f"the list is of transformers {keys().version}: python -m "
                "tests.support.config_keys_of_transformers makes it anew"
            )
        assert json.loads(listed.FILE.read_text()) == listed.keys()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("hidden_act", "gelu"),
            ("is_causal", False),
            ("attention_chunk_size", 64),
            ("attention_bias", True),
            ("num_kv_shared_layers", 1),
            ("is_encoder_decoder", True),
            ("transformers_weights", "other.safetensors"),
        ],
    )
    def test_a_value_that_changes_the_network_is_refused_by_name(
        self, key: str, value: Any, tmp_path: Path
    ) -> None:
        for generation in ("qwen3", "qwen3_5"):
            case = next(case for case in grid() if case.generation == generation)
            config = case.config()
            config.get("text_config", config)[key] = value
            folder = write(tmp_path / generation, config, case.weights())
            with pytest.raises(PackError, match=key) as refused:
                Checkpoint.open(folder)
            assert (
                refused.value.exit_code == ExitCode.INPUT and "config.json" in refused.value.message
            )

    def test_a_key_that_transformers_reads_and_that_is_not_known_here_is_refused_whatever_its_value(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = keys()
        shape = Shape.from_config(next(grid()).config(), "config.json")
        later = type(data)(
            data.version, {"qwen2": data.read["qwen2"] | {"logit_scale"}}, data.known, data.only
        )
        check_keys({"logit_scale": 2.0}, shape, "config.json")
        monkeypatch.setattr("packager.shape.keys.keys", lambda: later)
        check_keys({"logit_scale": None, "my_own_note": 7}, shape, "config.json")
        with pytest.raises(PackError, match=r"transformers .* reads logit_scale \(2\.0\)"):
            check_keys({"logit_scale": 2.0}, shape, "config.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}},
            "rope_scaling.rope_type is 'spiral'",
        ),
        ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "'proportional'"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
            "every kind of layer",
        ),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor is -1"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor is '2'"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
            "short_factor is not a list of 8",
        ),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "rope_theta": 1}}, "rope_theta is 1"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": -3}}, "beta_fast is -3"),
        ({"rope_scaling": 7}, "rope_scaling is 7"),
        ({"rope_scaling": {"type": 7}}, "type is 7"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
            "partial_rotary_factor is 0.5",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types is not 4 times"),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types is not 4 times"),
        ({"layer_types": ["sliding_attention"] * 4}, "use_sliding_window is not true"),
        ({"use_sliding_window": True, "sliding_window": -8}, "sliding_window is -8"),
        ({"use_sliding_window": "yes"}, "use_sliding_window is 'yes'"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else None,
)
def test_positions_and_windows_that_cannot_be_are_refused_with_the_key_named(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    case = next(case for case in grid() if case.generation == "qwen3" and case.positions == "plain")
    folder = write(tmp_path, case.config() | changes, case.weights())
    with pytest.raises(PackError) as refused:
        Checkpoint.open(folder)
    assert said in refused.value.message and str(tmp_path / "config.json") in refused.value.message
    assert refused.value.exit_code == ExitCode.INPUT


def test_a_case_of_the_grid_is_the_same_in_every_run() -> None:
    one, other = (Case(7, "qwen2", "yarn", "tied", "none", "BF16").weights() for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize(
    ("positions", "change"),
    [
        ("linear", {"factor": 2.1}),
        ("linear", {"theta": 10_000.0}),
        ("dynamic", {"factor": 2.2}),
        ("dynamic", {"kind": "default"}),
        ("yarn", {"amplitude": 1.1}),
        ("yarn", {"factor": 4.4}),
        ("yarn", {"original": 100}),
        ("yarn", {"theta": 10_000.0}),
        ("yarn, attention_factor", {"amplitude": 1.0 + 0.1 * np.log(4)}),
        ("yarn, betas", {"beta_fast": 32.0}),
        ("yarn, betas", {"beta_slow": 1.0}),
        ("yarn, betas", {"truncate": True}),
        ("llama3", {"low": 1.5}),
        ("llama3", {"high": 8.0}),
        ("llama3", {"original": 64}),
        ("longrope", {"amplitude": 1.0}),
        ("longrope", {"original": 100}),
    ],
    ids=str,
)
def test_the_grid_sees_every_single_mistake_about_positions(
    positions: str, change: dict[str, Any], tmp_path: Path
) -> None:
    case = next(
        case for case in grid() if (case.generation, case.positions) == ("qwen3", positions)
    )
    right = Checkpoint.open(case.write(tmp_path))
    wrong = replace(right, positions=replace(right.positions, **change))
    found, other = (
        Reference.compute(each, case.ids(), Silent()).logits(1) for each in (right, wrong)
    )
    assert np.abs(found - other).max() > 4 * MOST * np.abs(found).max()


@given(
    table=st.dictionaries(
        st.sampled_from(
            [
                *(
                    "rope_type",
                    "type",
                    "factor",
                    "rope_theta",
                    "original_max_position_embeddings",
                    "attention_factor",
                ),
                *(
                    "beta_fast",
                    "beta_slow",
                    "mscale",
                    "mscale_all_dim",
                    "truncate",
                    "low_freq_factor",
                    "high_freq_factor",
                ),
                *("short_factor", "long_factor", "partial_rotary_factor"),
            ]
        ),
        st.one_of(
            st.sampled_from([*KINDS, "mrope", "spiral", None, True, [], {}, [1.0] * 8]),
            st.floats(allow_nan=True),
            st.integers(-3, 1 << 40),
        ),
    )
)
def test_no_table_of_positions_ends_in_anything_but_frequencies_or_a_sentence(
    table: dict[str, Any],
) -> None:
    for decoder in (QWEN3, QWEN3_NEXT):
        try:
            found = positions_of({"rope_scaling": table}, decoder, "config.json")
        except PackError as refused:
            assert refused.exit_code == ExitCode.INPUT and "config.json" in refused.message
            continue
        for length in (1, 100_000):
            assert frequencies(found, length).shape == (found.width // 2,)
