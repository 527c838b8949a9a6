"""What stands beside the graph of an embedder or a reranker for whoever runs it: `retrieval.json`.

A GGUF has keys for it; a graph of OpenVINO or ONNX has none, and its applications are told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from packager.checkpoint import Checkpoint
from packager.checkpoint import retrieval as rules
from packager.errors import bad_input
from packager.files import write_json
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonObject
from packager.limits import SETTINGS_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "retrieval.json"
POOLINGS = ("last", "mean", "rank")


@dataclass(frozen=True, slots=True)
class Head:
    """How a graph's states become a vector or a score.

    `pooling` is last, mean or rank, which is a score of the last position. `normalize` says whether
    vectors are brought to length 1. `query` stands in front of a query. `labels` are those of a
    reranker, the relevant one first, and `template` its prompt with {query} and {document}.
    """

    pooling: str
    normalize: bool = False
    query: str | None = None
    labels: tuple[str, ...] = ()
    template: str | None = None


def of(source: Checkpoint, task: str) -> Head:
    """The head that a checkpoint takes for `task`, embed or rerank. Raises PackError (exit code 6)
    for conventions that are not built."""
    if task == "rerank":
        template = rules.RERANK.replace("{instruction}", rules.INSTRUCTION)
        return Head("rank", labels=rules.ANSWERS, template=template)
    own = rules.conventions(source)
    return Head("last", normalize=True, query=own.query.replace("{instruction}", rules.INSTRUCTION))


def write(head: Head, folder: Path) -> None:
    """Write the file into an artifact's folder."""
    write_json(folder / FILE, asdict(head))


def read(folder: Path) -> Head:
    """The file of an artifact. Raises PackError (exit code 6) where it is missing or is none."""
    path = folder / FILE
    try:
        data: JsonObject = parse_json(bounded_bytes(path, SETTINGS_BYTES), str(path))
        head = msgspec.convert(data, Head)
    except (OSError, msgspec.ValidationError) as error:
        raise bad_input(
            f"{path} does not say how to make a vector or a score.", "Build the package again."
        ) from error
    if head.pooling not in POOLINGS:
        raise bad_input(
            f"{path}: pooling is {head.pooling!r}, not one of {', '.join(POOLINGS)}.",
            "Build the package again.",
        )
    return head


def answers(source: Checkpoint) -> NDArray[np.float32]:
    """(hidden,): of a reranker's output matrix the row of yes less that of no. The logistic
    function of its product with a state is the probability of yes beside no.

    Raises PackError (exit code 6) without a tokenizer in which each is one token.
    """
    # Late: only a reranker is asked for two words.
    import numpy as np
    from tokenizers import Tokenizer

    from packager.checkpoint.numbers import to_float32

    path = source.tokenizer_json
    if path is None:
        raise bad_input(
            f"{source.folder} has no tokenizer.json.",
            "Take the folder of Qwen3-Reranker with all its files.",
        )
    name = "lm_head.weight" if "lm_head.weight" in source.tensors else "model.embed_tokens.weight"
    rows = rules.answer_ids(Tokenizer.from_file(str(path)), str(path))
    yes, no = (to_float32(source.array(name)[number]) for number in rows)
    return np.asarray(yes - no, np.float32)
