"""Tokenizers, chat templates and ends of turn as people have them: the trained tiny Qwen3 with other
files beside its weights, each after a kind of public report (docs/field.md)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.field_cases import BASE, EMBEDDING, Field

END_OF_TEXT, END_OF_TURN = 2022, 2024
FREE = 2048
"""The next free id."""


class Spoken(Field):
    """A checkpoint in memory whose descriptions are open too; None leaves a file out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer: dict[str, Any] | None = _read("tokenizer.json")
        self.tokenizer_config: dict[str, Any] = _read("tokenizer_config.json")
        self.generation: dict[str, Any] | None = _read("generation_config.json")

    def save(self, folder: Path) -> Path:
        """Write it; `files` last."""
        described = {
            "tokenizer.json": self.tokenizer,
            "tokenizer_config.json": self.tokenizer_config,
            "generation_config.json": self.generation,
        }
        self.files = {
            **{name: None if value is None else _json(value) for name, value in described.items()},
            **self.files,
        }
        return super().save(folder)

    def add(self, text: str, *, file: bool = True, config: bool = True, **flags: bool) -> int:
        """An added token at the next free id, in tokenizer.json, tokenizer_config.json or both; the
        embedding gets 16 rows more with the first."""
        assert self.tokenizer is not None
        listed = self.tokenizer_config["added_tokens_decoder"]
        ids = [*(entry["id"] for entry in self.tokenizer["added_tokens"]), *map(int, listed)]
        number = max(ids) + 1
        entry = {"content": text, **dict.fromkeys(_FLAGS, False), **flags}
        if file:
            self.tokenizer["added_tokens"].append({"id": number, **entry})
        if config:
            listed[str(number)] = entry
        self.grow()
        return number

    def grow(self) -> None:
        """Rows for tokens behind the tiny model's own; what they hold says nothing."""
        rows = self.weights[EMBEDDING]
        if len(rows) == FREE:
            self.weights[EMBEDDING] = np.concatenate([rows, np.zeros_like(rows[:16])])
            self.config["vocab_size"] = FREE + 16

    def says(self, template: str | None) -> None:
        """A chat template in a file of its own in place of the one in tokenizer_config.json."""
        self.tokenizer_config.pop("chat_template", None)
        if template is not None:
            self.files["chat_template.jinja"] = template.encode()


_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def _read(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((BASE / name).read_bytes())
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


Case = Callable[[Spoken], Any]

_TURN = "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
_OPEN = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
CHATML = "{%- for m in messages %}" + _TURN + "{%- endfor %}" + _OPEN
_GENERATION = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' %}"
    "{% generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}{%- else %}"
    "{{- m.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- endfor %}" + _OPEN
)
_TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for t in tools %}"
    "{{- t | tojson(ensure_ascii=False) + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
)
_LINES = (
    "{%- for m in messages %}\n<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\n"
    "{%- if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
)


def _with_cr(ending: str) -> Case:
    return lambda spoken: spoken.files.update(
        {"chat_template.jinja": _LINES.replace("\n", ending).encode()}
    )


def _slow_files(spoken: Spoken) -> None:
    assert spoken.tokenizer is not None
    model = spoken.tokenizer["model"]
    merges = "".join(f"{' '.join(merge)}\n" for merge in model["merges"])
    spoken.files |= {
        "vocab.json": _json(model["vocab"]),
        "merges.txt": f"#version: 0.2\n{merges}".replace("\n", "\r\n").encode(),
    }
    spoken.tokenizer = None


def _added_json_alone(spoken: Spoken) -> None:
    spoken.grow()
    del spoken.tokenizer_config["added_tokens_decoder"]
    spoken.files["added_tokens.json"] = _json({"<|only_added|>": FREE})


def _as_transformers_5_saves(spoken: Spoken) -> None:
    config = spoken.tokenizer_config
    del config["added_tokens_decoder"]
    config |= {
        "extra_special_tokens": config.pop("additional_special_tokens", []),
        "backend": "tokenizers",
        "is_local": False,
    }


def _merges_as_text(spoken: Spoken) -> None:
    assert spoken.tokenizer is not None
    model = spoken.tokenizer["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]


def _in_definition(**changes: Any) -> Case:
    def change(spoken: Spoken) -> None:
        assert spoken.tokenizer is not None
        spoken.tokenizer.update(changes)

    return change


TRUNCATION = {
    "direction": "Right",
    "max_length": 16,
    "strategy": "LongestFirst",
    "stride": 0,
}
PADDING = {
    "strategy": {"Fixed": 32},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": END_OF_TEXT,
    "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}


def _ends(generation: dict[str, Any] | None, **config: Any) -> Case:
    def change(spoken: Spoken) -> None:
        spoken.generation = generation
        spoken.config |= config
        spoken.config = {key: value for key, value in spoken.config.items() if value is not None}

    return change


def _nothing_ends(spoken: Spoken) -> None:
    _ends(None, eos_token_id=None, bos_token_id=None)(spoken)
    spoken.tokenizer_config.pop("eos_token")


def _own_end(spoken: Spoken) -> None:
    number = spoken.add("<|end_of_answer|>", special=True)
    spoken.tokenizer_config["eos_token"] = "<|end_of_answer|>"
    _ends({"eos_token_id": [number, END_OF_TURN]}, eos_token_id=number)(spoken)


def _bos(spoken: Spoken) -> None:
    spoken.tokenizer_config["bos_token"] = "<|endoftext|>"
    spoken.says("{{ bos_token }}" + CHATML)


def _as_a_trainer_left_it(spoken: Spoken) -> None:
    """Many of the others at once, none of which another one hides."""
    spoken.add("<|only_config|>", file=False, special=True)
    _in_definition(truncation=TRUNCATION, padding=PADDING, normalizer=None)(spoken)
    _merges_as_text(spoken)
    _with_cr("\r\n")(spoken)
    spoken.tokenizer_config |= {"pad_token": "<|im_end|>", "padding_side": "left"}
    spoken.tokenizer_config["model_max_length"] = 64
    _ends({"eos_token_id": END_OF_TEXT, "pad_token_id": 151643}, pad_token_id=151643)(spoken)


SAME: dict[str, Case] = {
    "as a trainer left it": _as_a_trainer_left_it,
    # Tokens.
    "tokens added": lambda spoken: (
        spoken.add("<|my_tool|>", special=True),
        spoken.add("<step>", normalized=True),
    ),
    "a token in tokenizer_config.json alone": lambda spoken: spoken.add(
        "<|only_config|>", file=False, special=True
    ),
    "a token in added_tokens.json beside a list": lambda spoken: (
        spoken.grow(),
        spoken.files.update({"added_tokens.json": _json({"<|only_added|>": FREE})}),
    ),
    "a token in added_tokens.json alone": _added_json_alone,
    "a token of two words": lambda spoken: spoken.add("hello world", normalized=True),
    "normalizer null": _in_definition(normalizer=None),
    "no normalizer": lambda spoken: spoken.tokenizer.pop("normalizer"),
    "merges as text": _merges_as_text,
    "a tokenizer that cuts": _in_definition(truncation=TRUNCATION),
    "a tokenizer that pads": _in_definition(padding=PADDING),
    "a short model_max_length": lambda spoken: spoken.tokenizer_config.update(model_max_length=64),
    "as transformers 5 saves it": _as_transformers_5_saves,
    "extra_special_tokens as a list": lambda spoken: spoken.tokenizer_config.update(
        extra_special_tokens=spoken.tokenizer_config.pop("additional_special_tokens", [])
    ),
    # Padding.
    "pad is the end of turn": lambda spoken: spoken.tokenizer_config.update(
        pad_token="<|im_end|>", padding_side="right"
    ),
    "pad to the left": lambda spoken: spoken.tokenizer_config.update(padding_side="left"),
    "no pad": lambda spoken: spoken.tokenizer_config.update(pad_token=None),
    "pad beyond the vocabulary": _ends(
        {"eos_token_id": [END_OF_TURN, END_OF_TEXT], "pad_token_id": 151643}, pad_token_id=151643
    ),
    # Templates.
    "a template of its own file": lambda spoken: spoken.says(CHATML),
    "generation blocks": lambda spoken: spoken.says(_GENERATION),
    "tojson with ensure_ascii": lambda spoken: spoken.says(_TOOLS + CHATML),
    "strftime_now": lambda spoken: spoken.says(
        "{{- '<|im_start|>system\\nToday is ' + strftime_now('%Y-%m-%d') + '<|im_end|>\\n' }}"
        + CHATML
    ),
    "eos_token added up": lambda spoken: spoken.says(
        CHATML.replace("'<|im_end|>\\n'", "eos_token + '\\n'")
    ),
    "eos_token printed": lambda spoken: spoken.says(
        _LINES.replace("<|im_end|>", "{{ eos_token }}")
    ),
    "bos_token printed": _bos,
    "tools is not none": lambda spoken: spoken.says(
        "{%- if tools is not none %}{{- '<|im_start|>system\\nTools.<|im_end|>\\n' }}{%- endif %}"
        + CHATML
    ),
    "templates by name": lambda spoken: spoken.tokenizer_config.update(
        chat_template=[
            {"name": "default", "template": CHATML},
            {"name": "tool_use", "template": "TOOLS" + CHATML},
        ]
    ),
    "loop controls": lambda spoken: spoken.says(
        CHATML.replace(_TURN, "{%- if loop.index > 50 %}{%- break %}{%- endif %}" + _TURN)
    ),
    "CRLF in chat_template.jinja": _with_cr("\r\n"),
    "CR in chat_template.jinja": _with_cr("\r"),
    "CRLF in tokenizer_config.json": lambda spoken: spoken.tokenizer_config.update(
        chat_template=_LINES.replace("\n", "\r\n")
    ),
    "no template": lambda spoken: spoken.says(None),
    # Ends of turn.
    "a base model's end": _ends({"eos_token_id": END_OF_TEXT}, eos_token_id=END_OF_TEXT),
    "an end of one's own": _own_end,
    "a tool call ends the turn": _ends({"eos_token_id": [END_OF_TURN, END_OF_TEXT, 2037]}),
    "no generation_config.json": _ends(None),
    "no generation_config.json, a list": _ends(None, eos_token_id=[END_OF_TURN, END_OF_TEXT]),
    "an end in tokenizer_config.json alone": _ends(None, eos_token_id=None, bos_token_id=None),
    "no end in any file": _nothing_ends,
    "an end of null": _ends({"eos_token_id": None}),
    "vocab.json and merges.txt alone": _slow_files,
}
"""What every engine takes, saying what transformers says."""

BY_SOME: dict[str, tuple[Case, dict[str, str]]] = {
    "tokens that take the spaces beside them": (
        lambda spoken: (spoken.add("<ls>", lstrip=True), spoken.add("<rs>", rstrip=True)),
        {
            "llama.cpp": "added tokens are cut out of a text in another way",
            "onnxruntime": "added tokens are cut out of a text in another way",
        },
    ),
    "a token that is a word": (
        lambda spoken: spoken.add("cat", single_word=True),
        dict.fromkeys(
            ("llama.cpp", "openvino", "onnxruntime"),
            "added tokens are cut out of a text in another way",
        ),
    ),
}
"""What some engines take; the others refuse it, or it is a finding of the gate: with that text."""

NOTED: dict[str, tuple[Case, str]] = {
    "a token in tokenizer.json alone": (
        lambda spoken: spoken.add("<|only_file|>", config=False, special=True),
        "tokenizer.json has the added token '<|only_file|>', which tokenizer_config.json does not",
    ),
}
"""Taken, though transformers 5 reads it otherwise; a note says so."""


def _gap(spoken: Spoken) -> None:
    assert spoken.tokenizer is not None
    spoken.add("<|gap|>", config=False)
    spoken.tokenizer["added_tokens"][-1]["id"] = FREE + 12


def _two_names(spoken: Spoken) -> None:
    spoken.tokenizer_config["added_tokens_decoder"]["2040"]["content"] = "<|mine|>"


def _twice(spoken: Spoken) -> None:
    assert spoken.tokenizer is not None
    spoken.add("<|twice|>", config=False)
    spoken.add("<|twice|>", config=False)


REFUSED: dict[str, tuple[Case, str]] = {
    "a token behind a gap": (
        _gap,
        "gives the added token '<|gap|>' the id 2060, but tokenizers give it 2048",
    ),
    "two names of a token": (_two_names, "calls the token 2040 both"),
    "a token twice": (
        _twice,
        "gives the added token '<|twice|>' the id 2049, but tokenizers give it 2048",
    ),
    "a token without a row": (
        lambda spoken: (
            spoken.add("<|no_row|>", file=False),
            spoken.weights.update({EMBEDDING: spoken.weights[EMBEDDING][:FREE]}),
            spoken.config.update(vocab_size=FREE),
        ),
        "has the token id 2048, but the embedding has only 2048 rows",
    ),
    "an added token without an id": (
        lambda spoken: (
            spoken.tokenizer_config.pop("added_tokens_decoder"),
            spoken.files.update({"added_tokens.json": _json({"<|x|>": "2048"})}),
        ),
        "added_tokens.json has token ids that are not whole numbers",
    ),
    "templates without a default": (
        lambda spoken: spoken.tokenizer_config.update(
            chat_template=[{"name": "chat", "template": CHATML}]
        ),
        "none called default",
    ),
    "another way to split": (
        lambda spoken: spoken.tokenizer.update(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "\\s+"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "splits text by an expression that is not one of Qwen's",
    ),
    "byte order mark in tokenizer_config.json": (
        lambda spoken: spoken.files.update(
            {"tokenizer_config.json": codecs.BOM_UTF8 + _json(spoken.tokenizer_config)}
        ),
        "tokenizer_config.json begins with a byte order mark",
    ),
    "byte order mark in chat_template.jinja": (
        lambda spoken: spoken.files.update(
            {"chat_template.jinja": codecs.BOM_UTF8 + CHATML.encode()}
        ),
        "chat_template.jinja begins with a byte order mark",
    ),
}
"""What nobody can build, with a part of the sentence."""
