"""The exact commands that run an embedder or a reranker without qwen-pack."""

from __future__ import annotations

from packager.checkpoint.retrieval import INSTRUCTION
from packager.json_values import JsonObject, at, at_or_none, texts_at
from packager.recipe import Recipe
from targets.gguf.presets import DEFAULT_KV
from targets.llama_cpp.memory import EMBEDDING_BATCH

MODEL = "model/model.gguf"


def how_to_run(recipe: Recipe, workload: JsonObject, task: str) -> str:
    """Markdown with commands for llama-server and Python."""
    context = at(workload, "context", int)
    files = texts_at(workload, "files") or [MODEL]
    model = next((file for file in files if file.endswith(".gguf")), MODEL)
    quantized = recipe.kv != DEFAULT_KV
    cache = f" --cache-type-k {recipe.kv} --cache-type-v {recipe.kv}" if quantized else ""
    layers = at_or_none(workload, "gpu_layers", int) or 0
    offload = f" --n-gpu-layers {layers}" if layers else ""
    common = f"--ctx-size {context} --parallel 1 --flash-attn on{cache}{offload} --load-mode none"
    if task == "rerank":
        return _rerank(model, common, context)
    return _embed(model, common, context, at_or_none(workload, "dimension", int), layers)


def _embed(model: str, common: str, context: int, dimension: int | None, layers: int) -> str:
    batch = min(EMBEDDING_BATCH, context)
    offload = f", n_gpu_layers={layers}" if layers else ""
    kept = f"[:{dimension}]" if dimension else ""
    shortened = (
        f"\nThis package keeps the first {dimension} numbers of a vector, brought to length 1 "
        "again.\n"
        if dimension
        else ""
    )
    return f"""Pooling (the last token) and the end of text are stored in the file; the command says the pooling once more.
{shortened}
With [llama.cpp](https://github.com/ggml-org/llama.cpp), as a server at http://127.0.0.1:8080/v1/embeddings, which brings vectors to
length 1:

```
llama-server --model {model} {common} --embedding --pooling last --batch-size {batch} --ubatch-size {batch} --port 8080
curl http://127.0.0.1:8080/v1/embeddings --header "Content-Type: application/json" --data '{{"input": ["A document."]}}'
```

A query comes with an instruction in front of it, a document without one:

```
Instruct: {INSTRUCTION}
Query:how long to boil an egg
```

With Python, `pip install llama-cpp-python numpy`:

```python
import llama_cpp
import numpy as np

model = llama_cpp.Llama(
    "{model}", embedding=True, n_ctx={context}, n_batch={batch}, n_ubatch={batch}, flash_attn=True{offload}, verbose=False
)
instruction = "Instruct: {INSTRUCTION}\\nQuery:"
texts = [instruction + "how long to boil an egg", "Hard eggs take nine minutes.", "The shop sells eggs."]
rows = np.array([model.embed(text){kept} for text in texts])
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
print(rows[1:] @ rows[0])
```
"""


def _rerank(model: str, common: str, context: int) -> str:
    return f"""The head that says yes or no and the prompt around query and document are stored in the file.

With [llama.cpp](https://github.com/ggml-org/llama.cpp), as a server at http://127.0.0.1:8080/v1/rerank (it computes a pair at once,
so that its batch is as long as the context):

```
llama-server --model {model} {common} --reranking --batch-size {context} --ubatch-size {context} --port 8080
curl http://127.0.0.1:8080/v1/rerank --header "Content-Type: application/json" \\
  --data '{{"query": "how long to boil an egg", "documents": ["Nine minutes.", "The shop sells eggs."]}}'
```

`relevance_score` is the probability of "yes" against that of "no", from 0 to 1.
"""
