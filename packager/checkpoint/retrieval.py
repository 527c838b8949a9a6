"""How a checkpoint makes a vector of a text, or a score of a query and a document: pooling, end of
text, instruction, template.

Qwen3-Embedding takes the normalized state of the last token, which is an end of text that the
tokenizer appends; Qwen3-Reranker the probability of "yes" against that of "no" behind a prompt.
Source: the two model cards; arXiv:2506.05176.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.checkpoint import Checkpoint
from packager.checkpoint.folder import POOLING, read_json, read_text
from packager.errors import bad_input
from packager.foreign import parse_json
from packager.json_values import JsonObject

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What a query is for by default; published with both models."""

QUERY = "Instruct: {instruction}\nQuery:{query}"
"""How Qwen3-Embedding is given a query; a document is given as it is."""

RERANK = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""The prompt of Qwen3-Reranker, up to where it says yes or no."""

ANSWERS = ("yes", "no")
"""The two tokens that are compared, the relevant one first."""

_WAY_ON = "Take a checkpoint that pools the last token, as Qwen3-Embedding does."
_MODES = "pooling_mode_"
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Conventions:
    """What a text becomes on its way to a vector.

    `end` is the id that the tokenizer appends to a text, None where it appends none. `query` is put
    in front of a query; `{instruction}` in it takes the user's.
    """

    end: int | None
    query: str


def conventions(checkpoint: Checkpoint) -> Conventions:
    """The conventions of an embedder, by its files for Sentence Transformers where it has them.

    Raises PackError (exit code 6) for another pooling than that of the last token, for layers
    behind the pooling, and for a tokenizer that puts other things around a text than one token
    behind it.
    """
    files = checkpoint.files
    if "modules.json" in files:
        _refuse_other_modules(files["modules.json"])
    if POOLING in files:
        _refuse_other_pooling(str(files[POOLING]), read_json(files[POOLING]))
    query = QUERY.partition("{query}")[0]
    if "config_sentence_transformers.json" in files:
        path = files["config_sentence_transformers.json"]
        prompts = read_json(path).get("prompts") or {}
        own = prompts.get("query") if isinstance(prompts, dict) else prompts
        if own is not None and not isinstance(own, str):
            raise bad_input(f"{path}: prompts.query is not text.", "Get the file again.")
        query = own if own is not None else query
    return Conventions(_end(checkpoint), query)


def query_text(conventions: Conventions, query: str, instruction: str | None = None) -> str:
    """A query with its instruction in front of it: the user's, or the checkpoint's own."""
    if instruction is None:
        own = conventions.query.replace("{instruction}", INSTRUCTION)
        return own + query
    return QUERY.format(instruction=instruction, query=query)


def rerank_text(query: str, document: str, instruction: str | None = None) -> str:
    """The prompt of a reranker."""
    return RERANK.format(instruction=instruction or INSTRUCTION, query=query, document=document)


def answer_ids(tokenizer: Tokenizer, where: str) -> tuple[int, int]:
    """The ids of "yes" and "no". Raises PackError (exit code 6) where one of them is not a single
    token."""
    numbers = []
    for word in ANSWERS:
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        if len(ids) != 1:
            raise bad_input(
                f"{where}: {word!r} is {len(ids)} tokens, so it has no single logit.",
                "Take the tokenizer of Qwen3-Reranker.",
            )
        numbers.append(ids[0])
    return numbers[0], numbers[1]


def _refuse_other_pooling(where: str, pooling: JsonObject) -> None:
    modes = [
        key.removeprefix(_MODES)
        for key, value in pooling.items()
        if key.startswith(_MODES) and value is True
    ]
    named = pooling.get("pooling_mode")
    modes += [named] if isinstance(named, str) else []
    if modes and modes not in (["lasttoken"], ["last_token"], ["last"]):
        raise bad_input(
            f"{where} pools by {' and '.join(modes)}, and only the last token's state is taken "
            "here.",
            _WAY_ON,
        )
    if pooling.get("include_prompt") is False:
        raise bad_input(f"{where} leaves the prompt out of the pooling.", _WAY_ON)


def _refuse_other_modules(path: Path) -> None:
    try:
        modules = parse_json(read_text(path).encode(), str(path))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (KeyError, TypeError):
        raise bad_input(
            f"{path} lists no modules of Sentence Transformers.", "Get the file again."
        ) from None
    for kind in kinds:
        if kind not in _MODULES:
            raise bad_input(
                f"{path} has a layer of the type {kind!r} after the states, which is not "
                "supported.",
                _WAY_ON,
            )


def _end(checkpoint: Checkpoint) -> int | None:
    """What the tokenizer's post-processor puts behind a text. tokenizer_config.json is not asked:
    its flags do nothing where the post-processor says otherwise."""
    # Late: only what builds and measures needs it.
    from tokenizers import Tokenizer

    if checkpoint.tokenizer_json is None:
        # Two files of words and merges have no post-processor: Qwen2Tokenizer appends nothing.
        return None
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_json))
    # What a training run has left there acts on no text of a user's.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    if whole == plain:
        return None
    if whole[:-1] != plain:
        raise bad_input(
            f"{checkpoint.tokenizer_json} puts {len(whole) - len(plain)} tokens around a text.",
            "Take a tokenizer that appends one end of text, as Qwen3-Embedding's does.",
        )
    return int(whole[-1])


def shortened(ids: Sequence[int], limit: int, end: int | None) -> list[int]:
    """At most `limit` ids; a text that is cut keeps its end of text, whose state is the vector."""
    if len(ids) <= limit:
        return list(ids)
    return [*ids[: limit - 1], end] if end is not None else list(ids[:limit])
