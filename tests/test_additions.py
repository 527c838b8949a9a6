"""What a user adds to a recipe: in its id, settings and cache key; only runtimes that know it take
part; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.plan.additions import Additions, applied, parse
from packager.recipe import split_id
from targets.llama_cpp import LlamaCpp
from targets.openvino import OpenVino
from tests.support.plain_runtime import PLAIN, chat, fit, target

LLAMA = LlamaCpp()
BOTH = (LLAMA, OpenVino())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("some words")
    return path


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """What a matrix in the older form begins with: one entry, whose name has one letter."""
    path = tmp_path / "matrix.dat"
    path.write_bytes(b"\1\0\0\0\1\0\0\0a")
    return path


def test_without_additions_every_runtime_takes_part_as_it_is() -> None:
    assert applied(BOTH, parse(None, None, [])) == BOTH


def test_with_additions_only_a_runtime_that_knows_them_does(matrix: Path) -> None:
    (only,) = applied(BOTH, parse(matrix, None, []))
    assert only.name == "llama.cpp"
    assert only.recipe("IQ2_M").id == "gguf:IQ2_M/imatrix"
    shape = catalog.find("Qwen3-0.6B").shape
    assert shape is not None
    assert only.obstacle(shape, only.recipe("IQ2_M")) is None
    assert "importance matrix" in str(LLAMA.obstacle(shape, LLAMA.recipe("IQ2_M")))


def test_a_recipe_keeps_names_and_digests_of_files_and_no_path(text: Path) -> None:
    recipe = LLAMA.with_additions(parse(None, text, [])).recipe("Q4_0", "q8_0")
    assert recipe.id == "gguf:Q4_0/kv_q8_0/imatrix"
    assert recipe.settings["calibration"]["file"] == "words.txt"
    assert len(recipe.settings["calibration"]["sha256"]) == 64
    assert str(text.parent) not in repr(recipe)


def test_types_of_tensors_stand_in_the_id_and_their_order_counts() -> None:
    patterns = ["attn_v=q8_0", "ffn_down=Q6_K"]
    one, two = (
        LLAMA.with_additions(parse(None, None, order)).recipe("Q4_0")
        for order in (patterns, patterns[::-1])
    )
    assert one.settings["tensor_types"] == {"attn_v": "Q8_0", "ffn_down": "Q6_K"}
    assert one.id.startswith("gguf:Q4_0/types_")
    assert one.id != two.id
    assert split_id(one.id) == ("gguf", "Q4_0", None)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["attn_v"], "PATTERN=TYPE"),
        (["=Q8_0"], "PATTERN=TYPE"),
        (["attn_v=Q9_0"], "cannot become 'Q9_0'"),
        (["attn_v=I32"], "cannot become 'I32'"),
        (["(=Q8_0"], "not a valid regular expression"),
    ],
)
def test_a_pattern_or_type_that_cannot_be_is_refused_in_a_sentence(
    patterns: list[str], words: str
) -> None:
    with pytest.raises(PackError, match=words) as caught:
        applied((LLAMA,), parse(None, None, patterns))
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.engine
@pytest.mark.parametrize(
    ("pattern", "words"),
    [("no_such_tensor=Q8_0", "no_such_tensor"), ("attn_v=IQ2_XXS", "importance matrix")],
)
def test_a_pattern_that_fits_no_tensor_of_a_model_is_its_obstacle(pattern: str, words: str) -> None:
    runtime = LLAMA.with_additions(parse(None, None, [pattern]))
    shape = catalog.find("Qwen3-0.6B").shape
    assert shape is not None
    assert words in str(runtime.obstacle(shape, runtime.recipe("Q4_0")))


@pytest.mark.engine
def test_types_of_tensors_change_the_size_that_is_planned() -> None:
    shape = catalog.find("Qwen3-0.6B").shape
    assert shape is not None
    finer = LLAMA.with_additions(parse(None, None, ["ffn_=Q8_0"]))
    assert finer.artifact_bytes(shape, finer.recipe("Q4_0")) > 1.3 * LLAMA.artifact_bytes(
        shape, LLAMA.recipe("Q4_0")
    )


def test_both_ways_to_an_importance_matrix_contradict_each_other(text: Path) -> None:
    with pytest.raises(PackError, match="both"):
        parse(text, text, [])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"--imatrix names .*no-such"):
        parse(tmp_path / "no-such.gguf", None, [])


@pytest.mark.parametrize("data", [b"", b"  \n", b"GGUF\3\0\0\0", b"PK\3\4zip", b"\0\0\0\1"])
def test_what_is_no_text_is_refused_before_anything_is_built(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(PackError) as caught:
        LLAMA.with_additions(parse(None, path, []))
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("data", [b"", b"some words", b"\0" * 12, b"PK\3\4zipzip"])
def test_what_is_no_importance_matrix_is_refused_before_anything_is_chosen(
    data: bytes, tmp_path: Path
) -> None:
    (tmp_path / "matrix.gguf").write_bytes(data)
    with pytest.raises(PackError, match="not an importance matrix") as caught:
        parse(tmp_path / "matrix.gguf", None, [])
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_recipe_of_a_runtime_that_takes_none_is_refused(matrix: Path, text: Path) -> None:
    with pytest.raises(PackError, match="cannot be added to openvino"):
        applied(BOTH, parse(matrix, None, []), "openvino:int8_asym")
    with pytest.raises(PackError, match="No runtime"):
        applied((PLAIN,), Additions(calibration=text))


def test_an_id_with_marks_is_no_recipe_to_type() -> None:
    with pytest.raises(PackError, match="names more than a recipe"):
        applied(BOTH, Additions(), "gguf:IQ2_M/imatrix")


def test_a_limit_on_files_rejects_what_a_runtime_does_not_split() -> None:
    found = fit(target(), chat(max_file_bytes=1_000_000_000), "Qwen3-1.7B")
    by_bits = {
        candidate.recipe.weights: [reason.rule for reason in candidate.reasons]
        for candidate in found
    }
    assert by_bits["b16"] == ["file"]
    assert by_bits["b4"] == []


def test_gguf_passes_a_limit_as_long_as_its_largest_tensor_does() -> None:
    shape = catalog.find("Qwen3-8B").shape
    assert shape is not None
    recipe = LLAMA.recipe("Q8_0")
    assert LLAMA.artifact_bytes(shape, recipe) > 8e9
    # 151,936 rows of 4096 elements in 34/32 bytes each, and the vocabulary before them.
    assert LLAMA.least_file_bytes(shape, recipe) == pytest.approx(
        151936 * 4096 * 34 / 32 + 5.93e6, rel=0.001
    )
