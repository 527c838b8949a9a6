"""The program that runs an embedder or a reranker without qwen-pack, for the package's README."""

from __future__ import annotations

import json

from packager.checkpoint.retrieval import INSTRUCTION, RERANK
from packager.json_values import JsonObject, at, at_or_none, object_or_empty


def how_to_run(workload: JsonObject, task: str) -> str:
    """Markdown: the line that installs the engine, and a program for a query and two documents."""
    context = at(workload, "context", int)
    settings = object_or_empty(object_or_empty(workload, "settings"), "options")
    entries = "".join(
        f"options.add_session_config_entry({json.dumps(key)}, {json.dumps(str(value))})\n"
        for key, value in settings.items()
    )
    body = _rerank() if task == "rerank" else _embed(at_or_none(workload, "dimension", int))
    return f"""The pooling, and the step from a state to a vector of length 1 or a score, are part of the graph. It takes texts padded on the right.

With Python, `pip install onnxruntime tokenizers`:

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

options = onnxruntime.SessionOptions()
{entries}session = onnxruntime.InferenceSession("model/model.onnx", options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file("model/tokenizer.json")
tokenizer.enable_padding(direction="right")
{_truncation(task, context)}

{body}```
"""


def _truncation(task: str, context: int) -> str:
    if task == "rerank":
        return (
            f"# A prompt must keep its end: cut documents beforehand, to {context} tokens in all."
        )
    return f"tokenizer.enable_truncation({context})"


def _embed(dimension: int | None) -> str:
    kept = (
        f"rows = rows[:, :{dimension}] / np.linalg.norm(rows[:, :{dimension}], axis=1, "
        "keepdims=True)\n"
        if dimension
        else ""
    )
    return f"""instruction = "Instruct: {INSTRUCTION}\\nQuery:"
texts = [instruction + "how long to boil an egg", "Hard eggs take nine minutes.", "The shop sells eggs."]
found = tokenizer.encode_batch(texts)
given = {{
    "input_ids": np.array([text.ids for text in found]),
    "attention_mask": np.array([text.attention_mask for text in found]),
}}
(rows,) = session.run(["sentence_embedding"], given)
{kept}print(rows[1:] @ rows[0])
"""


def _rerank() -> str:
    return f"""prompt = {json.dumps(RERANK)}
instruction = "{INSTRUCTION}"
query, documents = "how long to boil an egg", ["Nine minutes.", "The shop sells eggs."]
texts = [prompt.format(instruction=instruction, query=query, document=text) for text in documents]
found = tokenizer.encode_batch(texts, add_special_tokens=False)
given = {{
    "input_ids": np.array([text.ids for text in found]),
    "attention_mask": np.array([text.attention_mask for text in found]),
}}
(scores,) = session.run(["score"], given)
print(scores[:, 0])
"""
