"""The end of a decoder that gives vectors or scores: llama.cpp's pooling, and a reranker's head.

Source: llama.cpp, conversion/qwen.py (tensor, labels and template of a reranker) and
src/llama-graph.cpp (build_pooling). What a checkpoint is follows from the task that it is built
for, not from its name or a README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gguf

from packager.checkpoint import Checkpoint
from packager.checkpoint import retrieval as rules
from packager.errors import bad_input
from packager.json_values import JsonObject
from targets.gguf.tensors import OutTensor, Part, library_order
from targets.gguf.tokenizer import Vocabulary

if TYPE_CHECKING:
    from targets.gguf.arch.base import Shapes

CLASSIFIER = "cls.output.weight"
_OUTPUT = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Head:
    """What a file for `task` has besides the decoder: `answers` are the rows of the output matrix
    of a reranker, `end` is the id that an embedder appends to a text."""

    task: str
    answers: tuple[int, int] | None = None
    end: int | None = None

    @classmethod
    def of(cls, source: Checkpoint, task: str) -> Head:
        """The head for a checkpoint. Raises PackError (exit code 6) where its conventions are not
        those that llama.cpp has."""
        if task == "embed":
            return cls(task, end=rules.conventions(source).end)
        if task == "rerank":
            # Late: only a reranker is asked for two words.
            from tokenizers import Tokenizer

            path = source.tokenizer_json
            if path is None:
                raise bad_input(
                    f"{source.folder} has no tokenizer.json.",
                    "Take the folder of Qwen3-Reranker with all its files.",
                )
            return cls(task, answers=rules.answer_ids(Tokenizer.from_file(str(path)), str(path)))
        return cls(task)

    def config(self, config: JsonObject) -> JsonObject:
        """The configuration of what is written: without an output matrix of its own."""
        return config if self.task == "generate" else {**config, "tie_word_embeddings": True}

    def decoder(self, shapes: Shapes) -> Shapes:
        """The tensors of the decoder proper."""
        if self.task == "generate":
            return shapes
        return {name: shape for name, shape in shapes.items() if name != _OUTPUT}

    def tensors(self, stored: Shapes, planned: list[OutTensor]) -> list[OutTensor]:
        """`planned` and the two rows of a reranker's output matrix, or of the embedding where that
        is one."""
        if self.answers is None:
            return planned
        embedding = next(tensor for tensor in planned if tensor.name == "token_embd.weight")
        rows = _OUTPUT if _OUTPUT in stored else embedding.parts[0].source
        parts = tuple(Part(rows, number, 1) for number in self.answers)
        head = OutTensor(CLASSIFIER, (len(parts), embedding.columns), parts, f32=True)
        return sorted([*planned, head], key=library_order)

    def vocabulary(self, vocabulary: Vocabulary) -> Vocabulary:
        """With what an embedder appends to every text: that, and nothing of tokenizer_config.json,
        decides."""
        if self.task != "embed":
            return vocabulary
        special = dict(vocabulary.special)
        if self.end is not None:
            # llama.cpp appends the id of its eos slot.
            special["eos"] = self.end
        return replace(
            vocabulary,
            special=special,
            add={**vocabulary.add, "bos": False, "eos": self.end is not None},
        )

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """The keys of the pooling; for a reranker the labels and the prompt."""
        if self.task == "embed":
            writer.add_pooling_type(gguf.PoolingType.LAST)
        elif self.task == "rerank":
            writer.add_pooling_type(gguf.PoolingType.RANK)
            writer.add_classifier_output_labels(list(rules.ANSWERS))
            template = rules.RERANK.replace("{instruction}", rules.INSTRUCTION)
            writer.add_chat_template([{"name": "rerank", "template": template}])


TEXT = Head("generate")


def facts(values: Mapping[str, Any], architecture: str) -> JsonObject:
    """What the keys of a file say of its head: `pooling`, `labels`, `template`."""
    pooling = values.get(f"{architecture}.pooling_type")
    known = {int(kind): kind.name.lower() for kind in gguf.PoolingType}
    return {
        "pooling": known.get(pooling) if isinstance(pooling, int) else None,
        "labels": list(values.get(f"{architecture}.classifier.output_labels") or ()),
        "template": values.get("tokenizer.chat_template.rerank"),
    }
