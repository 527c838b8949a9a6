"""The exact commands that run the package without qwen-pack."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from packager.json_values import JsonObject, at, at_or_none, object_or_empty, texts_at
from packager.need.usecases import use_case
from packager.recipe import Recipe
from packager.records.speculation import Speculation
from targets.gguf.presets import DEFAULT_KV, PROJECTOR
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


def how_to_run(recipe: Recipe, workload: JsonObject) -> str:
    """Markdown with commands for llama-cli, llama-server, Ollama and Python; for vectors and scores
    those of llama-server and Python.

    `workload` may bring `chat_template`, the package's own: Ollama is told it in its own language.
    """
    task = use_case(at_or_none(workload, "use_case", str) or "chat").task
    if task != "generate":
        return how_to_retrieve.how_to_run(recipe, workload, task)
    context = at(workload, "context", int)
    files = texts_at(workload, "files") or [MODEL]
    ggufs = [file for file in files if file.endswith(".gguf")]
    projector = next((file for file in ggufs if PurePosixPath(file).name == PROJECTOR), None)
    texts = [file for file in ggufs if file != projector]
    # The engine finds the other parts by the name of the first.
    model = next(iter(texts), MODEL)
    parts = len(texts) > 1
    quantized = recipe.kv != DEFAULT_KV
    layers = at_or_none(workload, "gpu_layers", int) or 0
    settings = object_or_empty(workload, "settings")
    common = _common(recipe.kv, context, workload)
    at_once = at_or_none(workload, "parallel", int) or 1
    drafting = _drafting(object_or_empty(workload, "speculation"))
    server = f"{common}{drafting}"
    if at_once > 1:
        # The server shares the context among its sequences.
        server = server.replace(
            f"--ctx-size {context}", f"--ctx-size {context * at_once} --parallel {at_once}"
        )
    seeing = _seeing(projector, workload)
    constants = (
        f", type_k=llama_cpp.GGML_TYPE_{recipe.kv.upper()}, "
        f"type_v=llama_cpp.GGML_TYPE_{recipe.kv.upper()}"
        if quantized
        else ""
    )
    in_python = f", n_gpu_layers={layers}" if layers else ""
    variables = (
        {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": recipe.kv} if quantized else {}
    )
    if at_once > 1:
        variables["OLLAMA_NUM_PARALLEL"] = str(at_once)
    variables |= {
        name: str(value) for name, value in object_or_empty(settings, "variables").items()
    }
    ollama = _ollama(model, projector, parts, layers, workload, variables)
    python = f"""
With Python, `pip install llama-cpp-python`:

```python
import llama_cpp
{PLAIN_WEIGHTS if "use_extra_bufts" in object_or_empty(settings, "options") else ""}
model = llama_cpp.Llama("{model}", n_ctx={context}, n_batch=512, flash_attn=True{in_python}, verbose=False{constants})
answer = model.create_chat_completion([{{"role": "user", "content": "What is the capital of France?"}}], max_tokens=200)
print(answer["choices"][0]["message"]["content"])
```
"""
    chats = f"""in a terminal:

```
llama-cli --model {model} {common}
```

as"""
    # What writes sound down answers no text.
    writes = hears(workload) and not at_or_none(workload, "audio_window", int)
    return f"""With [llama.cpp](https://github.com/ggml-org/llama.cpp), {"as" if writes else chats} a server that speaks OpenAI's protocol, at http://127.0.0.1:8080/v1:

```
llama-server --model {model}{seeing} {server} --jinja --port 8080
```
{_pictures(model, seeing, common, workload)}{_warm(model, seeing, server, workload)}
Threads: as many as the machine has physical cores, or fewer (`--threads N`): decoding is bound by memory. On a machine that others use,
set `OMP_WAIT_POLICY=passive`. A llama.cpp that does not know `--load-mode none` calls it `--no-mmap`.

{ollama}{"" if writes else python}"""


def how_to_add(model: str, adapter: str, workload: JsonObject) -> str:
    """Markdown with commands that add an adapter to the base in the folder BASE, started as its own
    README starts it."""
    kv, context = at_or_none(workload, "kv", str), at_or_none(workload, "context", int)
    start = f"--model BASE/{model} --lora {adapter} {_common(kv or DEFAULT_KV, context, workload)}"
    return f"""With [llama.cpp](https://github.com/ggml-org/llama.cpp), in a terminal:

```sh
llama-cli {start}
```

as a server that speaks OpenAI's protocol, at http://127.0.0.1:8080/v1:

```sh
llama-server {start} --jinja --port 8080
```"""


def _common(kv: str, context: int | None, workload: JsonObject) -> str:
    """Flags that every tool is started with."""
    quantized = kv != DEFAULT_KV
    size = f"--ctx-size {context} " if context else ""
    cache = f" --cache-type-k {kv} --cache-type-v {kv}" if quantized else ""
    layers = at_or_none(workload, "gpu_layers", int) or 0
    offload = f" --n-gpu-layers {layers}" if layers else ""
    flags = "".join(f" {flag}" for flag in texts_at(object_or_empty(workload, "settings"), "flags"))
    # Flash attention is what a quantized cache of values needs; without mmap repacked tensors are
    # in memory once.
    return f"{size}--flash-attn on{cache}{offload} --load-mode none{flags}"


def _ollama(
    model: str,
    projector: str | None,
    parts: bool,
    layers: int,
    workload: JsonObject,
    variables: dict[str, str],
) -> str:
    """Commands that make a model of Ollama's, with the chat template in Ollama's language.

    Ollama runs no Jinja: of a GGUF's template it only asks whether it is nearly one of those that it
    has itself, and takes that, or none (template/template.go of github.com/ollama/ollama, Named).
    """
    # Late: it reads checkpoints, which sizes and footprints need not.
    from packager.shipping.apps.ollama_template import translated

    if projector and hears(workload):
        return (
            "Ollama's requests have no field for sound (github.com/ollama/ollama, issue 11798): take "
            "llama-server.\n"
        )
    jinja = at_or_none(workload, "chat_template", str)
    chat = translated(jinja) if jinja else None
    if isinstance(chat, str):
        return (
            f"Ollama cannot be given this model's chat template: {chat}. Take llama-server, which "
            "reads it from the file.\n"
        )
    merge = f"llama-gguf-split --merge {model} {MERGED}\n" if parts else ""
    one_file = ", which takes one file" if parts else ""
    lines = [f"FROM ./{MERGED if parts else model}"]
    lines += [f"FROM ./{projector}"] if projector else []
    lines.append(f"PARAMETER num_ctx {workload['context']}")
    lines += [f"PARAMETER num_gpu {layers}"] if layers else []
    says = ""
    if chat is not None:
        lines.append(f'TEMPLATE """{chat.template}"""')
        says = (
            "`TEMPLATE` is this model's own chat template in Ollama's language, tools left out. "
            "Without it Ollama\nwould use another one, or none.\n"
        )
        says += "".join(f"It writes this otherwise: {limit}.\n" for limit in chat.limits)
    modelfile = "\n".join(lines)
    end = "END"
    while f"\n{end}\n" in f"\n{modelfile}\n":
        end += "D"
    longest = max((len(run) for run in re.findall("`+", modelfile)), default=0)
    fence = "`" * max(3, longest + 1)
    started = "".join(f"{name}={value} " for name, value in variables.items())
    asks = ' "What is in this picture? ./picture.jpg"' if projector else ""
    if projector and workload.get("max_image_tokens"):
        says += (
            "Ollama has no setting for the tokens of a picture: large ones take more than this "
            "package was planned for.\n"
        )
    return f"""With [Ollama](https://ollama.com){one_file} (a server that runs already has to be started with the
variables in front, where there are any):

{fence}
{merge}cat > Modelfile <<'{end}'
{modelfile}
{end}
{started}ollama create qwen-packed --file Modelfile
{started}ollama run qwen-packed{asks}
{fence}
{says}"""


def hears(workload: JsonObject) -> bool:
    """Whether sound comes in."""
    return "audio" in texts_at(workload, "modality")


def _seeing(projector: str | None, workload: JsonObject) -> str:
    """What the tools are told of the vision tower or the audio encoder; nothing for text alone."""
    if projector is None:
        return ""
    if hears(workload):
        # The checkpoint's template passes over texts of the user, and with them over the place of
        # the sound that the tools write into one.
        return f" --mmproj {projector} --no-warmup --chat-template chatml"
    tokens = workload.get("max_image_tokens")
    limit = f" --image-max-tokens {tokens}" if tokens else ""
    # A warm-up reserves memory for pictures of 2,116 tokens, whatever the limit is.
    return f" --mmproj {projector}{limit} --no-warmup"


def _drafting(known: JsonObject) -> str:
    """Flags for the way of drafting that was found to pay; nothing where none does."""
    if not known:
        return ""
    return "".join(f" {word}" for word in Speculation.from_json(known).llama_server_options())


def _warm(model: str, seeing: str, server: str, workload: JsonObject) -> str:
    """How the server keeps the state of the fixed prefix; nothing where none is to be kept."""
    if not workload.get("warm"):
        return ""
    slot = "curl -X POST -H 'Content-Type: application/json' 'http://127.0.0.1:8080/slots/0?action="
    named = '\' -d \'{"filename": "prefix.state"}\''
    return f"""
Every chat begins with the same tokens. To keep their state over restarts, start the server with a folder that only you can write to,

```
mkdir -m 700 states
llama-server --model {model}{seeing} {server} --jinja --port 8080 --parallel 1 --slot-save-path states
```

keep the state once, after the first answer, and take it back after each start. A state is of this file, this llama.cpp and this
processor; open none that somebody else made.

```
{slot}save{named}
{slot}restore{named}
```
"""


def _pictures(model: str, seeing: str, common: str, workload: JsonObject) -> str:
    """How a picture or a sound is asked about, or a sound written down; nothing for text alone."""
    if not seeing:
        return ""
    if window := at_or_none(workload, "audio_window", int):
        return f"""
`llama-cli` above answers text alone. A sound is asked about with

```
llama-mtmd-cli --model {model}{seeing} {common} --audio sound.wav --prompt "What is heard in this sound?"
```

and the server takes sound as `input_audio` of a message, next to the question. llama.cpp reads WAV, MP3 and FLAC, fills each sound up to
{window} seconds and makes as many tokens of it as of {window} seconds; of a longer one it makes those of several. The published model makes
tokens of the sound alone: answers differ, and `quality.sounds` in `manifest.json` says by how much.
"""
    if hears(workload):
        return f"""
What is said in a sound is written down by

```
llama-mtmd-cli --model {model}{seeing} {common} --audio sound.wav --prompt ""
```

and the server takes sound as `input_audio` of a message. The answer begins with the language: `language English<asr_text>...`. llama.cpp
reads WAV, MP3 and FLAC, and makes 13 tokens more of a sound that is a whole number of seconds long.
"""
    return f"""
`llama-cli` above answers text alone. A picture is asked about with

```
llama-mtmd-cli --model {model}{seeing} {common} --image picture.jpg --prompt "What is in this picture?"
```

and the server takes pictures as `image_url` of a message. Keep `--flash-attn on`: without it the vision tower takes several times
the memory.
"""
