"""The catalogue: every Qwen variant, found by name or by filter, with a source per claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from packager.catalog import Variant, families, find, load, select
from packager.errors import ExitCode, PackError
from packager.shape import KNOWN_TYPES

ALL = load()


def named(variant: Variant) -> str:
    return variant.name


def test_no_repository_and_no_short_name_occurs_twice() -> None:
    assert (
        len({variant.repo_id.casefold() for variant in ALL})
        == len({variant.name.casefold() for variant in ALL})
        == len(ALL)
    )


def test_variants_can_be_kept_in_a_set() -> None:
    assert len({*ALL, *load()}) == len(ALL)


def test_every_family_of_the_house_is_there() -> None:
    text = {
        "Qwen",
        "Qwen1.5",
        "CodeQwen1.5",
        "Qwen2",
        "Qwen2-Math",
        "Qwen2.5",
        "Qwen2.5-1M",
        "Qwen2.5-Coder",
        "Qwen2.5-Math",
        "QwQ",
    }
    third = {
        "Qwen3",
        "Qwen3-2507",
        "Qwen3-Coder",
        "Qwen3-Next",
        "Qwen3-Coder-Next",
        "Qwen3.5",
        "Qwen3.6",
        "Qwen3.8",
    }
    other = {
        "Qwen-VL",
        "Qwen2-VL",
        "Qwen2.5-VL",
        "Qwen3-VL",
        "QVQ",
        "Qwen-Audio",
        "Qwen2-Audio",
        "Qwen2.5-Omni",
        "Qwen3-Omni",
    }
    tasks = {
        *("Qwen3-Embedding", "Qwen3-Reranker", "Qwen3-VL-Embedding", "Qwen3-VL-Reranker"),
        *("Qwen3Guard", "Qwen2-Math-RM", "Qwen2.5-Math-PRM", "Qwen3-ASR", "Qwen3-TTS"),
        *("Qwen-AgentWorld", "Qwen3.8-Flash-Next"),
    }
    assert set(families()) == text | third | other | tasks


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-0.6B", "Qwen3-0.6B", "qwen3-0.6b", "QWEN/QWEN3-0.6B", " qwen3-0.6b "]
)
def test_a_variant_is_found_by_its_repository_or_its_short_name_in_any_case(name: str) -> None:
    assert find(name).repo_id == "Qwen/Qwen3-0.6B"


def test_an_unknown_variant_is_a_usage_error_that_names_the_nearest() -> None:
    with pytest.raises(PackError, match="no variant 'qwen3-06b'") as caught:
        find("qwen3-06b")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "Did you mean 'Qwen3-0.6B'" in caught.value.message
    assert caught.value.hint == "List them with: qwen-pack models"
    with pytest.raises(PackError, match=r"'Qwen/Qwen2\.5-7B"):
        find("qwen/qwen2.5-7")


def test_filters_narrow_the_list_and_refuse_a_value_that_nothing_has() -> None:
    found = select(family="qwen3", license="Apache-2.0", modality="text")
    assert {variant.family for variant in found} == {"Qwen3"} and find("Qwen3-0.6B") in found
    assert all(variant.license is None for variant in select(license="unstated"))
    assert {variant.name for variant in select(modality="audio")} >= {
        "Qwen2-Audio-7B",
        "Qwen2.5-Omni-7B",
    }
    assert select(family="Qwen3", license="qwen-research") == ()
    for wrong in ({"family": "Qwen4"}, {"license": "mit"}, {"modality": "smell"}):
        with pytest.raises(PackError, match="The catalogue has no") as caught:
            select(**wrong)
        assert caught.value.exit_code == ExitCode.USAGE


def test_what_no_source_states_is_none_and_what_stands_in_for_it_in_the_shape_is_named() -> None:
    assert not [
        variant for variant in ALL if variant.shape is not None and variant.context_native is None
    ]
    # Searched for in the hub's copies of config.json: these three have none that was found.
    assert {variant.name: variant.assumed for variant in ALL if variant.assumed} == {
        "Qwen2-Math-72B": ("rms_eps",),
        "Qwen2-Math-72B-Instruct": ("rms_eps",),
        "Qwen2-VL-72B": ("rms_eps",),
    }
    # Searched for in the hub's stored pages: those of the chat models beside them are there.
    unstated = {variant.name for variant in ALL if variant.license is None}
    assert unstated == {"Qwen2-Math-72B", "Qwen2.5-Math-72B"}
    assert not [variant.name for variant in ALL if variant.release_date is None]
    assert find("Qwen3-0.6B").assumed == () and find("Qwen3-0.6B").shape_verified


@pytest.mark.parametrize(
    ("name", "rope_theta", "rms_eps", "context"),
    [
        ("Qwen1.5-4B", 5e6, 1e-6, 32768),
        ("Qwen1.5-4B-Chat", 5e6, 1e-6, 32768),
        ("Qwen1.5-32B", 1e6, 1e-6, 32768),
        ("Qwen2-72B", 1e6, 1e-5, 131072),
        ("Qwen2-72B-Instruct", 1e6, 1e-6, 32768),
        ("Qwen2-VL-72B-Instruct", 1e6, 1e-6, 32768),
        ("QVQ-72B-Preview", 1e6, 1e-6, 128000),
        ("Qwen2-Math-7B-Instruct", 1e4, 1e-6, 4096),
    ],
)
def test_what_a_config_json_says_stands_in_the_shape(
    name: str, rope_theta: float, rms_eps: float, context: int
) -> None:
    shape = find(name).shape
    assert shape is not None
    assert (shape.rope_theta, shape.rms_eps, find(name).context_native) == (
        rope_theta,
        rms_eps,
        context,
    )


def test_the_tables_of_the_publisher_say_what_it_was_trained_on() -> None:
    told = {name: find(name) for name in ("Qwen-1_8B-Chat", "Qwen-7B", "Qwen3-4B", "QwQ-32B")}
    assert {
        name: (variant.trained_tokens, variant.system_prompt) for name, variant in told.items()
    } == {
        "Qwen-1_8B-Chat": (2_200_000_000_000, "enhanced"),
        "Qwen-7B": (2_400_000_000_000, "plain"),
        "Qwen3-4B": (36_000_000_000_000, None),
        "QwQ-32B": (None, None),
    }


def test_every_number_and_every_claim_has_a_source() -> None:
    for variant in ALL:
        needed = {"repo_id"}
        needed |= {"shape"} if variant.shape else set()
        needed |= {"context"} if variant.context_native else set()
        needed |= {"license"} if variant.license else set()
        needed |= {"released"} if variant.release_date else set()
        needed |= {"vision"} if variant.params_vision else set()
        needed |= {"audio"} if variant.params_audio else set()
        needed |= {"trained"} if variant.trained_tokens else set()
        assert needed <= set(variant.sources), variant.name
        assert all(text.strip() for text in variant.sources.values())


def test_a_research_licence_is_flagged_and_a_free_one_is_not() -> None:
    assert {variant.name for variant in ALL if variant.research_only} == {
        "Qwen-1_8B",
        "Qwen-1_8B-Chat",
        "CodeQwen1.5-7B",
        "Qwen1.5-0.5B",
        "Qwen1.5-0.5B-Chat",
        "Qwen1.5-1.8B",
        "Qwen1.5-1.8B-Chat",
        "Qwen1.5-4B",
        "Qwen1.5-4B-Chat",
        "Qwen1.5-32B",
        "Qwen2.5-3B",
        "Qwen2.5-3B-Instruct",
        "Qwen2.5-Omni-3B",
        "Qwen2.5-Coder-3B",
        "Qwen2.5-Coder-3B-Instruct",
        "Qwen2.5-VL-3B-Instruct",
    }
    assert (find("Qwen3-4B").license, find("Qwen3-4B").research_only) == ("apache-2.0", False)


def test_what_cannot_be_built_says_why_and_names_a_variant_that_can() -> None:
    unbuildable = [variant for variant in ALL if variant.unbuildable]
    assert {variant.family for variant in unbuildable} == {
        *("Qwen-VL", "Qwen-Audio", "Qwen3Guard", "Qwen2-Math-RM"),
        *("Qwen2.5-Math-PRM", "Qwen3-ASR", "Qwen3-TTS", "Qwen3-VL-Embedding"),
        *("Qwen3-VL-Reranker", "Qwen-AgentWorld", "Qwen3.8-Flash-Next"),
    }
    for variant in unbuildable:
        # Nothing that is built here speaks, or tells when words were said.
        if variant.nearest is None:
            assert variant.kind == "speech" or variant.name == "Qwen3-ForcedAligner-0.6B"
            continue
        nearest = find(variant.nearest)
        assert nearest.unbuildable is None and nearest.shape is not None
        same_task = variant.kind == nearest.kind
        # Nothing that is built takes pictures and sound at once.
        omni = variant.kind == "omni" and "image" in nearest.modality_in
        assert same_task or omni or set(variant.modality_in) <= set(nearest.modality_in)
    for variant in ALL:
        assert variant.unbuildable or (
            variant.shape is not None and variant.model_type in KNOWN_TYPES
        )


def test_base_models_do_not_think_and_are_no_chat_models() -> None:
    assert all(variant.thinking == "never" and not variant.chat for variant in ALL if variant.base)
    thinking = {
        name: find(name).thinking
        for name in ("Qwen3-4B", "Qwen3-4B-Thinking-2507", "Qwen3-4B-Instruct-2507", "QwQ-32B")
    }
    assert list(thinking.values()) == ["switch", "always", "never", "always"]


def test_a_repository_in_which_a_variant_was_quantized_is_found_in_its_shape() -> None:
    rows = {variant.repo_id for variant in load()}
    for variant in load():
        for repo_id in variant.quantized_repos:
            found = find(repo_id)
            assert found == find(repo_id.rpartition("/")[2])
            assert found.repo_id == repo_id
            assert repo_id in rows or found.shape == variant.shape
    chat = find("Qwen-7B-Chat-Int4")
    assert chat.published_precisions == ("Int4",)
    assert chat.quantized_repos == ()
    assert "quantized by its publisher" in chat.notes[0]


def test_the_official_quantized_repositories_belong_to_the_variant_itself() -> None:
    assert find("Qwen3-4B").quantized_repos == ("Qwen/Qwen3-4B-AWQ", "Qwen/Qwen3-4B-FP8")
    assert find("Qwen2.5-7B").quantized_repos == ()
    assert find("Qwen2.5-Coder-7B-Instruct").published_precisions == (
        "BF16",
        "AWQ",
        "GPTQ-Int4",
        "GPTQ-Int8",
        "GGUF",
    )


def test_a_variant_as_json_has_the_fields_of_the_contract_and_its_sources() -> None:
    fields = json.loads(json.dumps(find("Qwen3-30B-A3B").as_dict()))
    assert fields["repo_id"] == "Qwen/Qwen3-30B-A3B"
    assert (fields["family"], fields["license"], fields["params_total"]) == (
        "Qwen3",
        "apache-2.0",
        30_532_122_624,
    )
    assert fields["shape"]["experts"]["count"] == 128
    assert fields["sources"]["license"]


def test_catalogue_and_scores_are_read_without_numpy_and_without_an_engine() -> None:
    code = """
import sys
from packager.catalog import load
from packager.catalog.benchmarks import scores
sum(len(scores(variant.repo_id)) for variant in load())
heavy = {"numpy", "torch", "transformers", "openvino", "onnxruntime", "llama_cpp", "huggingface_hub", "rich"}
print(sorted(heavy & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_every_row_agrees_with_the_collected_facts(shared: Path) -> None:
    rows = json.loads((shared / "facts" / "catalogue.json").read_text())["models"]
    # What gives vectors and scores was collected from its own README.
    later = ("guard", "reward", "speech", "world", "embedding", "reranking")
    text = [
        variant
        for variant in ALL
        if variant.kind not in later and variant.family not in ("Qwen3-ASR", "Qwen3.8-Flash-Next")
    ]
    assert [variant.repo_id for variant in sorted(text, key=named)] == [
        row["repo_id"] for row in sorted(rows, key=lambda row: row["repo_id"][5:])
    ]
    for row in rows:
        variant = find(row["repo_id"])
        assert (variant.family, variant.model_type) == (row["family"], row["model_type"])
        # Of Qwen2.5-Omni they count the text decoder alone.
        tower = variant.params_vision if variant.kind == "omni" else None
        counts = (variant.params_total, variant.params_text, variant.params_active)
        # The facts have no shape of the small Omni.
        assert row["params_text_decoder"] is None or counts == (
            row["params_total"] and row["params_total"] + (tower or 0),
            row["params_text_decoder"],
            row["params_active"],
        )
        # What the facts leave open the catalogue may state, with its source: a day of a month.
        assert (variant.release_date or "").startswith(row["release_date"] or "")
        assert row["max_position_embeddings"] in (None, variant.context_native)
        assert variant.context_extended == row["context_extended"]
        assert (list(variant.modality_in), list(variant.modality_out)) == (
            row["modality_in"],
            row["modality_out"],
        )
        assert row["license"] is None or variant.license is not None
        if variant.shape is not None and row["kv_cache_bytes_per_token_bf16"] is not None:
            per_token = (
                2
                * variant.shape.attention_layers
                * variant.shape.kv_heads
                * variant.shape.head_dim
                * 2
            )
            assert per_token == row["kv_cache_bytes_per_token_bf16"]
