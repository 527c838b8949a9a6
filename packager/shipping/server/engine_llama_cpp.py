"""llama.cpp by way of llama-cpp-python; of two prompts that begin alike the beginning is computed
once.

`qwen-pack serve` has another one, targets.llama_cpp.serving. It stands on the session that builds
are measured with, and drafts, sees and hears. An export holds this folder and no other code of
qwen-pack, so here the engine's own class is all there is to stand on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import llama_cpp

from .answers import OnToken
from .refused import Refused
from .settings import Settings

# Any: what the engine's own options take, numbers and flags.

_SMT = Path("/sys/devices/system/cpu/smt/active")


class Engine:
    """One model; one answer at a time."""

    def __init__(self, settings: Settings, unit: str) -> None:
        kind = getattr(llama_cpp, f"GGML_TYPE_{settings.kv.upper()}")
        if os.environ.get("LLAMA_ARG_REPACK") == "0":
            _keep_weights_plain()
        self._model = llama_cpp.Llama(
            str(settings.model),
            n_ctx=settings.context,
            n_threads=_cores(),
            n_threads_batch=_cores(),
            n_gpu_layers=int(settings.options.get("gpu_layers", 0 if unit == "CPU" else -1)),
            # Mapped pages would stay resident beside the copies that the kernels repack.
            use_mmap=False,
            flash_attn=True,
            type_k=kind,
            type_v=kind,
            verbose=False,
        )
        vocabulary = llama_cpp.llama_model_get_vocab(self._model.model)
        # An older package does not say what ends a turn: the model file does.
        self._ends = settings.ends or frozenset(
            token
            for token in range(self._model.n_vocab())
            if llama_cpp.llama_vocab_is_eog(vocabulary, token)
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, control tokens recognised, none added."""
        ids: list[int] = self._model.tokenize(text.encode(), add_bos=False, special=True)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids; a character whose last bytes are missing ends in U+FFFD."""
        text: str = self._model.detokenize(ids, special=True).decode("utf-8", "replace")
        return text

    def generate(
        self,
        ids: list[int],
        most: int,
        sampling: dict[str, float],
        schema: str | None,
        on_token: OnToken,
    ) -> None:
        """Call `on_token` with every token until it says False, the turn ends, or `most` have
        come."""
        options: dict[str, Any] = {
            "temp": sampling.get("temperature", 1.0),
            "top_k": int(sampling.get("top_k", 0)),
            "top_p": sampling.get("top_p", 1.0),
            "min_p": sampling.get("min_p", 0.0),
            "repeat_penalty": sampling.get("repetition_penalty", 1.0),
        }
        if schema is not None:
            options["grammar"] = _grammar(schema)
        seed = int(sampling.get("seed", 0)) or int.from_bytes(os.urandom(4), "little")
        self._model.set_seed(seed)
        for count, token in enumerate(self._model.generate(ids, **options), 1):
            if token in self._ends or not on_token(token) or count == most:
                return


def _grammar(schema: str) -> Any:
    try:
        return llama_cpp.LlamaGrammar.from_json_schema(schema, verbose=False)
    except Exception as error:
        # The converter raises whatever comes of a schema that it does not know.
        raise Refused(
            f"the engine does not accept this JSON schema: {json.loads(schema)}"
        ) from error


def _cores() -> int:
    """Processors that this process may use; one of two that share a core."""
    of_process = getattr(os, "sched_getaffinity", None)
    count = len(of_process(0)) if of_process else os.cpu_count() or 1
    try:
        shared = _SMT.read_text().strip() == "1"
    except OSError:
        shared = False
    return max(1, count // 2 if shared else count)


def _keep_weights_plain() -> None:
    """Load models without buffers of another layout, for which the class has no argument."""
    module = llama_cpp.llama_cpp
    defaults = module.llama_model_default_params

    def plain() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    module.llama_model_default_params = plain
