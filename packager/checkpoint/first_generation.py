"""What a first-generation checkpoint keeps in Python of its own, and is known here without it.

Its repositories point at modeling_qwen.py and its like. Those files are neither fetched nor read
nor run: the network is written down in packager.shape, the tokenizer in `tiktoken`, the chat format
below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packager.shape import FIRST_GENERATION

_OWN = {
    "configuration_qwen.QWenConfig",
    "modeling_qwen.QWenLMHeadModel",
    "tokenization_qwen.QWenTokenizer",
}
_OTHER_INPUTS = ("visual", "audio")

# Source: make_context in qwen_generation_utils.py of Qwen/Qwen-7B-Chat; chat() puts this system
# turn in front of every conversation.
CHAT_TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def text_only(config: Mapping[str, Any]) -> bool:
    """Whether the config is that of a first-generation text model; Qwen-VL and Qwen-Audio share the
    model_type."""
    return config.get("model_type") == FIRST_GENERATION and not any(
        config.get(key) for key in _OTHER_INPUTS
    )


def own_python(auto_map: Any) -> bool:
    """Whether an auto_map names the published classes of the first generation and nothing else."""
    if not isinstance(auto_map, Mapping):
        return False
    names: list[Any] = []
    for value in auto_map.values():
        names += value if isinstance(value, list) else [value]
    # transformers puts the repository that the class came from in front, behind which stand two
    # dashes.
    return all(
        name is None or (isinstance(name, str) and name.rpartition("--")[2] in _OWN)
        for name in names
    )


def chat_template(generation_config: Mapping[str, Any]) -> str | None:
    """ChatML where generation_config.json says so; None for a base model."""
    return CHAT_TEMPLATE if generation_config.get("chat_format") == "chatml" else None
