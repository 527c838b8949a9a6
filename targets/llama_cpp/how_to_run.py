"""The exact commands that run the package without qwen-pack."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from packager.need.usecases import use_case
from packager.recipe import Recipe
from targets.gguf import tower
from targets.gguf.presets import DEFAULT_KV
from targets.llama_cpp import how_to_retrieve

MODEL = "model/model.gguf"
MERGED = "merged.gguf"

PLAIN_WEIGHTS = """
defaults = llama_cpp.llama_cpp.llama_model_default_params


def plain_weights():
    params = defaults()
    params.use_extra_bufts = False  # for which llama_cpp.Llama has no argument
    return params


llama_cpp.llama_cpp.llama_model_default_params = plain_weights
"""
"""Lines of Python behind `import llama_cpp` after which it loads models without extra buffers."""


def how_to_run(recipe: Recipe, workload: dict[str, Any]) -> str:
    """Markdown with commands for llama-cli, llama-server, Ollama and Python; for vectors and scores
    those of llama-server and Python."""
    task = use_case(workload.get("use_case") or "chat").task
    if task != "generate":
        return how_to_retrieve.how_to_run(recipe, workload, task)
    context = int(workload["context"])
    files = workload.get("files") or [MODEL]
    ggufs = [file for file in files if file.endswith(".gguf")]
    projector = next((file for file in ggufs if PurePosixPath(file).name == tower.FILE), None)
    texts = [file for file in ggufs if file != projector]
    # The engine finds the other parts by the name of the first.
    model = next(iter(texts), MODEL)
    parts = len(texts) > 1
    merge = f"llama-gguf-split --merge {model} {MERGED}\n" if parts else ""
    whole = MERGED if parts else model
    reads = "which takes one file and reads" if parts else "which reads"
    quantized = recipe.kv != DEFAULT_KV
    cache = f" --cache-type-k {recipe.kv} --cache-type-v {recipe.kv}" if quantized else ""
    # Flash attention is what a quantized cache of values needs; without mmap repacked tensors are
    # in memory once.
    layers = int(workload.get("gpu_layers") or 0)
    offload = f" --n-gpu-layers {layers}" if layers else ""
    settings = workload.get("settings") or {}
    flags = "".join(f" {flag}" for flag in settings.get("flags", ()))
    common = f"--ctx-size {context} --flash-attn on{cache}{offload} --no-mmap{flags}"
    seeing = _seeing(projector, workload)
    constants = (
        f", type_k=llama_cpp.GGML_TYPE_{recipe.kv.upper()}, "
        f"type_v=llama_cpp.GGML_TYPE_{recipe.kv.upper()}"
        if quantized
        else ""
    )
    second = f"FROM ./{projector}\\n" if projector else ""
    parameter = f"PARAMETER num_gpu {layers}\\n" if layers else ""
    in_python = f", n_gpu_layers={layers}" if layers else ""
    variables = (
        {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": recipe.kv} if quantized else {}
    )
    variables |= settings.get("variables", {})
    environment = "".join(f"{name}={value} " for name, value in variables.items())
    return f"""With [llama.cpp](https://github.com/ggml-org/llama.cpp), in a terminal:

```
llama-cli --model {model} {common}
```

as a server that speaks OpenAI's protocol, at http://127.0.0.1:8080/v1:

```
llama-server --model {model}{seeing} {common} --jinja --port 8080
```
{_pictures(model, seeing, common)}
Threads: as many as the machine has physical cores, or fewer (`--threads N`): decoding is bound by memory. On a machine that others use,
set `OMP_WAIT_POLICY=passive`.

With [Ollama](https://ollama.com), {reads} the chat template from the file (a server that runs already has to be started with the
variables in front):

```
{merge}printf 'FROM ./{whole}\\n{second}PARAMETER num_ctx {context}\\n{parameter}' > Modelfile
{environment}ollama create qwen-packed --file Modelfile
{environment}ollama run qwen-packed
```

With Python, `pip install llama-cpp-python`:

```python
import llama_cpp
{PLAIN_WEIGHTS if "use_extra_bufts" in settings.get("options", {}) else ""}
model = llama_cpp.Llama("{model}", n_ctx={context}, n_batch=512, flash_attn=True{in_python}, verbose=False{constants})
answer = model.create_chat_completion([{{"role": "user", "content": "What is the capital of France?"}}], max_tokens=200)
print(answer["choices"][0]["message"]["content"])
```
"""


def _seeing(projector: str | None, workload: dict[str, Any]) -> str:
    """What the tools are told of the vision tower; nothing for text alone."""
    if projector is None:
        return ""
    tokens = workload.get("max_image_tokens")
    limit = f" --image-max-tokens {tokens}" if tokens else ""
    # A warm-up reserves memory for pictures of 2,116 tokens, whatever the limit is.
    return f" --mmproj {projector}{limit} --no-warmup"


def _pictures(model: str, seeing: str, common: str) -> str:
    """How a picture is asked about; nothing for text alone."""
    if not seeing:
        return ""
    return f"""
`llama-cli` above answers text alone. A picture is asked about with

```
llama-mtmd-cli --model {model}{seeing} {common} --image picture.jpg --prompt "What is in this picture?"
```

and the server takes pictures as `image_url` of a message. Keep `--flash-attn on`: without it the vision tower takes several times
the memory.
"""
