"""The program that runs an embedder or a reranker without qwen-pack, for the package's README."""

from __future__ import annotations

import json

from packager.checkpoint.retrieval import INSTRUCTION, RERANK
from packager.json_values import JsonObject, at, at_or_none


def how_to_run(workload: JsonObject, task: str, before: str) -> str:
    """Markdown; `before` are lines of Python that come before the engine is loaded."""
    context = at(workload, "context", int)
    text = _rerank(context) if task == "rerank" else _embed(context, workload)
    return f"""With Python, `pip install openvino-genai{" numpy" if task == "embed" else ""}`:

```python
{before}{text}```
"""


def _embed(context: int, workload: JsonObject) -> str:
    dimension = at_or_none(workload, "dimension", int)
    kept = (
        f"rows = rows[:, :{dimension}] / np.linalg.norm(rows[:, :{dimension}], axis=1, "
        "keepdims=True)\n"
        if dimension
        else ""
    )
    return f"""import numpy as np
import openvino_genai

config = openvino_genai.TextEmbeddingPipeline.Config()
config.pooling_type = openvino_genai.TextEmbeddingPipeline.PoolingType.LAST_TOKEN
config.normalize = True
config.max_length = {context}
pipeline = openvino_genai.TextEmbeddingPipeline("model", "CPU", config)
instruction = "Instruct: {INSTRUCTION}\\nQuery:"
texts = [instruction + "how long to boil an egg", "Hard eggs take nine minutes.", "The shop sells eggs."]
rows = np.array(pipeline.embed_documents(texts))
{kept}print(rows[1:] @ rows[0])
"""


def _rerank(context: int) -> str:
    head, tail = (json.dumps(part) for part in RERANK.split("{document}"))
    return f"""import openvino_genai

pipeline = openvino_genai.TextRerankPipeline("model", "CPU", top_n=10, max_length={context})
head = {head}
tail = {tail}
instruction = "{INSTRUCTION}"
documents = ["Nine minutes.", "The shop sells eggs."]
prompt = head.format(instruction=instruction, query="how long to boil an egg")
print(pipeline.rerank(prompt, [document + tail for document in documents]))  # number and score, best first
"""
