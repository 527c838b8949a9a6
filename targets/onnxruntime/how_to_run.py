"""How an artifact is run without qwen-pack, for the package's README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_DISTRIBUTIONS = {
    "cpu": "onnxruntime-genai",
    "cuda": "onnxruntime-genai-cuda",
    "dml": "onnxruntime-genai-directml",
    "webgpu": "onnxruntime-genai",
}
_NOTES = {
    "cuda": "\nMade for the CUDA execution provider: it needs an NVIDIA GPU, its driver, and "
    "CUDA.\n",
    "dml": "\nMade for DirectML, which is there under Windows 10 and 11 with any GPU.\n",
    "webgpu": "\nMade for the WebGPU execution provider, which not every build of ONNX Runtime "
    "has.\n",
}


def how_to_run(provider: str, workload: Mapping[str, Any]) -> str:
    """Markdown: the line that installs the engine, and a program that answers one question."""
    context = workload["context"]
    options = (workload.get("settings") or {}).get("options", {})
    wanted = {"model": {"decoder": {"session_options": dict(options)}}}
    opened = (
        f"config = og.Config(\"model\")\nconfig.overlay('{json.dumps(wanted)}')\nmodel = "
        "og.Model(config)"
    )
    return f"""With Python, `pip install {_DISTRIBUTIONS[provider]}`:

```python
import json
import onnxruntime_genai as og

{opened if options else 'model = og.Model("model")'}
tokenizer = og.Tokenizer(model)
question = json.dumps([{{"role": "user", "content": "What is the capital of France?"}}])
prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
options = og.GeneratorParams(model)
options.set_search_options(max_length={context}, do_sample=False)  # prompt and answer together
generator = og.Generator(model, options)
generator.append_tokens(tokenizer.encode(prompt))
stream = tokenizer.create_stream()
while not generator.is_done():
    generator.generate_next_token()
    print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)
```

The cache is allocated for `max_length` tokens at once; `model/genai_config.json` sets {context} where a program does not set it.
{_NOTES.get(provider, "")}"""
