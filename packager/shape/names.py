"""Which model types exist, and what their checkpoints call the text decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ExpertLayout = Literal["each", "fused", "fused-transposed"]


@dataclass(frozen=True, slots=True)
class Naming:
    """How the checkpoint of one model type is laid out.

    `body` stands before `embed_tokens`, `layers` and `norm`, `head` before `lm_head`; `config` is
    the way from the top of config.json to the text decoder's own table. `experts` says how a
    mixture is stored: one matrix for `each` expert, or `fused` into one tensor [experts, rows,
    columns], which Qwen3-VL keeps `fused-transposed` [experts, columns, rows].
    """

    decoder: str
    architecture: str
    body: str = "model."
    head: str = ""
    config: tuple[str, ...] = ()
    experts: ExpertLayout = "each"


# Names as in the weight maps of the official repositories; the classes as transformers 5.5 calls
# them.
NAMINGS: Mapping[str, Naming] = {
    "qwen": Naming("qwen", "QWenLMHeadModel", body="transformer."),
    "qwen2": Naming("qwen2", "Qwen2ForCausalLM"),
    "qwen2_moe": Naming("qwen2_moe", "Qwen2MoeForCausalLM"),
    "qwen2_vl": Naming("qwen2", "Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": Naming("qwen2", "Qwen2_5_VLForConditionalGeneration"),
    "qwen2_audio": Naming(
        "qwen2",
        "Qwen2AudioForConditionalGeneration",
        body="language_model.model.",
        head="language_model.",
        config=("text_config",),
    ),
    "qwen2_5_omni": Naming(
        "qwen2",
        "Qwen2_5OmniForConditionalGeneration",
        body="thinker.model.",
        head="thinker.",
        config=("thinker_config", "text_config"),
    ),
    "qwen3": Naming("qwen3", "Qwen3ForCausalLM"),
    "qwen3_moe": Naming("qwen3_moe", "Qwen3MoeForCausalLM"),
    "qwen3_vl": Naming(
        "qwen3",
        "Qwen3VLForConditionalGeneration",
        body="model.language_model.",
        config=("text_config",),
    ),
    "qwen3_vl_moe": Naming(
        "qwen3_moe",
        "Qwen3VLMoeForConditionalGeneration",
        body="model.language_model.",
        config=("text_config",),
        experts="fused-transposed",
    ),
    "qwen3_omni_moe": Naming(
        "qwen3_moe",
        "Qwen3OmniMoeForConditionalGeneration",
        body="thinker.model.",
        head="thinker.",
        config=("thinker_config", "text_config"),
    ),
    "qwen3_asr": Naming(
        "qwen3",
        "Qwen3ASRForConditionalGeneration",
        body="thinker.model.",
        head="thinker.",
        config=("thinker_config", "text_config"),
    ),
    "qwen3_next": Naming("qwen3_next", "Qwen3NextForCausalLM"),
    "qwen3_5": Naming(
        "qwen3_5",
        "Qwen3_5ForConditionalGeneration",
        body="model.language_model.",
        config=("text_config",),
    ),
    # Cut out of the whole model by transformers, which keeps the names that the whole model has.
    "qwen3_5_text": Naming("qwen3_5", "Qwen3_5ForCausalLM", body="model.language_model."),
    "qwen3_5_moe": Naming(
        "qwen3_5_moe",
        "Qwen3_5MoeForConditionalGeneration",
        body="model.language_model.",
        config=("text_config",),
        experts="fused",
    ),
    "qwen3_5_moe_text": Naming(
        "qwen3_5_moe", "Qwen3_5MoeForCausalLM", body="model.language_model.", experts="fused"
    ),
}


def config_path(config: Mapping[str, Any], naming: Naming) -> tuple[str, ...]:
    """The way from the top of a config.json to the text decoder's own table."""
    # Qwen2-VL and Qwen2.5-VL moved their decoder into text_config with transformers 4.52; both
    # forms are about.
    inner = isinstance(config.get("text_config"), Mapping)
    return naming.config or (("text_config",) if inner else ())


KNOWN_TYPES = tuple(NAMINGS)

COMPOSITE_TYPES = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen2_5_omni",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
)
"""Model types whose checkpoints hold a vision tower besides, which text alone leaves out."""

TEXT_TYPES = (
    "qwen",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_asr",
    "qwen2_audio",
    *COMPOSITE_TYPES,
)
"""The model types whose text decoder is opened; none of them needs its own Python code."""
FIRST_GENERATION = "qwen"
