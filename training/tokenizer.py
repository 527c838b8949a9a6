"""The tokenizer of the small model: a byte-level BPE learnt from its training text, with the
control tokens of Qwen3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packager.checkpoint.byte_level_bpe import (
    QWEN_PATTERN,
    byte_alphabet,
    tokenizer_config,
    tokenizer_json,
)
from packager.checkpoint.control_tokens import QWEN3
from training.corpus import TEMPLATE, documents

VOCAB = 2048
_DOCUMENTS = 12_000


def write(folder: Path, seed: int, context: int) -> None:
    """tokenizer.json and tokenizer_config.json in `folder`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    base = VOCAB - len(QWEN3)
    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.NFC()
    learnt.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=base, initial_alphabet=byte_alphabet(), show_progress=False
    )
    source = documents(f"{seed}/tokenizer")
    texts = [
        part
        for _ in range(_DOCUMENTS)
        for document in [next(source)]
        for part in (document.prompt, document.completion)
    ]
    learnt.train_from_iterator((_without_control(text) for text in texts), trainer)
    model = json.loads(learnt.to_str())["model"]
    # The synthetic tokenizer is one of Qwen's in everything but the words.
    definition: dict[str, Any] = json.loads(tokenizer_json(base, QWEN3))
    definition["model"] |= {"vocab": model["vocab"], "merges": model["merges"]}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(definition, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    config = tokenizer_config(base, QWEN3, context) | {"chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )


def _without_control(text: str) -> str:
    for token in QWEN3:
        text = text.replace(token.text, "\n")
    return text
