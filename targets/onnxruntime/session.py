"""One loaded ONNX Runtime model, driven through onnxruntime-genai."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import onnxruntime_genai as og

from packager import huge_pages
from packager.checkpoint.folder import read_json
from packager.checkpoint.tokenizer import chat_template
from packager.errors import PackError, bad_input, usage
from packager.foreign import bounded_bytes, parse_json
from packager.json_values import JsonObject, at, at_or_none, object_at, wholes_at
from packager.limits import SETTINGS_BYTES, TEXT_BYTES
from packager.session import require_room
from targets.onnxruntime import adapter, providers
from targets.onnxruntime.options import session_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from targets.onnxruntime.scorer import Scorer


_ADAPTER = "adapter"
"""What the engine calls the one adapter that is added."""


class OnnxRuntimeSession:
    """See packager.session.Session. Every answer has a generator, and so a cache, of its own."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        og.disable_telemetry_events()
        self._folder = folder = Path(artifact)
        self._config = config = _read(folder / "genai_config.json")
        provider = providers.of(config)
        providers.require(provider, og)
        self.runs_on = "cpu" if provider == "cpu" else "gpu"
        self._context = at(settings, "context", int)
        model = object_at(config, "model")
        self._vocabulary = at(model, "vocab_size", int)
        several = isinstance(model["eos_token_id"], list)
        self._ends = frozenset(
            wholes_at(model, "eos_token_id") if several else [at(model, "eos_token_id", int)]
        )
        self._settings = settings
        self._scorer: Scorer | None = None
        self._added = adapter.given(settings)
        self._adapters: Any = None
        self._model: Any = self._open()
        try:
            self._tokenizer = og.Tokenizer(self._model)
        except RuntimeError as error:
            raise self._unloadable(error) from error
        self._tokenizer.update_options(skip_special_tokens="false")
        self._normalizes = _normalizes(folder / "tokenizer.json")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, control tokens recognised, none added."""
        # The engine's tokenizer leaves the normalizer out: a letter with a combining accent would
        # become other tokens.
        return [
            int(token)
            for token in self._tokenizer.encode(
                normalize("NFC", text) if self._normalizes else text
            )
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids))) if ids else ""

    def ends(self) -> frozenset[int]:
        """See packager.session.Session."""
        return self._ends

    def chat_template(self) -> str | None:
        """See packager.session.Session. The engine reads chat_template.jinja first, as transformers
        does."""
        files = {path.name: path for path in self._folder.iterdir()}
        config = files.get("tokenizer_config.json")
        return chat_template(files, read_json(config) if config else {})

    def rendered(self, conversation: Mapping[str, Any]) -> str | None:
        """What the engine's own language makes of the template; None where it takes no such
        variable."""
        given = dict(conversation)
        messages, tools = given.pop("messages"), given.pop("tools", None)
        opened = given.pop("add_generation_prompt", True)
        if given:
            return None
        more = {} if tools is None else {"tools": json.dumps(tools, ensure_ascii=False)}
        text = json.dumps(messages, ensure_ascii=False)
        return str(self._tokenizer.apply_chat_template(text, add_generation_prompt=opened, **more))

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        """Decode greedily from a cold cache; the end-of-turn token that stops it is not part of the
        answer.

        Raises PackError when prompt and answer together exceed the context.
        """
        require_room(len(prompt), max_new_tokens, self._context)
        generator = self._generator()
        if self._adapters is not None:
            generator.set_active_adapter(self._adapters, _ADAPTER)
        generator.append_tokens(list(prompt))
        tokens: list[int] = []
        while len(tokens) < max_new_tokens:
            # The engine's own loop ends at an end-of-turn token and cannot be told to go on.
            token = int(generator.get_logits()[0, -1, : self._vocabulary].argmax())
            if stop and token in self._ends:
                break
            tokens.append(token)
            on_token(token)
            if len(tokens) < max_new_tokens:
                generator.append_tokens([token])
        return tokens

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """What the model says behind every token, in blocks; see packager.session.Session.

        The graph is loaded once more for it, and the engine's model closed until the next answer:
        one copy of the weights at a time.
        """
        if not ids or len(ids) > self._context:
            raise usage(
                f"{len(ids)} tokens do not fit a context of {self._context}.",
                "Shorten the text or take a longer context.",
            )
        self._model = self._adapters = None
        if self._scorer is None:
            # Late: onnxruntime and onnx beside onnxruntime-genai, for whoever asks for logits
            # alone.
            from targets.onnxruntime.scorer import Scorer

            self._scorer = Scorer(self._folder, self._settings, self._config)
        yield from self._scorer.logits(ids)

    def _open(self) -> Any:
        loading = og.Config(str(self._folder))
        threads = at_or_none(self._settings, "threads", int)
        wanted: JsonObject = {
            **session_options(),
            **({"intra_op_num_threads": threads} if threads else {}),
        }
        if wanted:
            loading.overlay(json.dumps({"model": {"decoder": {"session_options": wanted}}}))
        try:
            model = og.Model(loading)
            if self._added is not None:
                self._adapters = og.Adapters(model)
                self._adapters.load(str(self._added), _ADAPTER)
        except RuntimeError as error:
            raise self._unloadable(error) from error
        huge_pages.gather()
        return model

    def _unloadable(self, error: RuntimeError) -> PackError:
        line = _first_line(error)
        return bad_input(
            f"ONNX Runtime cannot load {self._folder}: {line}",
            "`qwen-pack verify` says which file is damaged.",
        )

    def _generator(self) -> Any:
        if self._model is None:
            self._scorer = None
            self._model = self._open()
        options = og.GeneratorParams(self._model)
        options.set_search_options(
            max_length=self._context, do_sample=False, num_beams=1, repetition_penalty=1.0
        )
        return og.Generator(self._model, options)

    def close(self) -> None:
        """Free the model."""
        self._scorer = None
        del self._tokenizer, self._adapters, self._model


def _first_line(error: Exception) -> str:
    """What the engine says, without the C++ that follows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _normalizes(path: Path) -> bool:
    """Whether a tokenizer.json asks for Unicode normalization form C, as all of Qwen's do."""
    try:
        normalizer = parse_json(bounded_bytes(path, TEXT_BYTES), str(path)).get("normalizer")
    except (OSError, AttributeError) as error:
        raise bad_input(f"{path} is not a tokenizer.", "Build the package again.") from error
    return bool(normalizer == {"type": "NFC"})


def _read(path: Path) -> JsonObject:
    try:
        config: JsonObject = parse_json(bounded_bytes(path, SETTINGS_BYTES), str(path))
        model = object_at(config, "model")
        if not {"vocab_size", "eos_token_id"} <= model.keys():
            raise ValueError("it names no vocabulary")
        object_at(object_at(model, "decoder"), "session_options")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise bad_input(
            f"{path} is not a configuration of onnxruntime-genai.", "Build the package again."
        ) from error
    return config
