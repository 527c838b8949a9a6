"""One loaded OpenVINO model, driven through openvino-genai on the CPU; of a model that takes
pictures or sound, its answers to text alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from packager import huge_pages
from packager.errors import usage
from packager.json_values import JsonDict, JsonObject, at
from packager.pictures.prompt import CONTROL
from packager.session import require_room
from targets.openvino import adapter, hearing, pixels, seeing
from targets.openvino.opening import opening
from targets.openvino.scorer import HearingScorer, Scorer, SeeingScorer, threads_of
from targets.openvino.sizes import cache_blocks
from targets.openvino.sound_pipeline import SoundPipeline


class OpenVinoSession:
    """See packager.session.Session. Paged attention with the cache allocated once for the whole
    context, no prefix cache."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        self._context = at(settings, "context", int)
        self._artifact, self._settings = Path(artifact), settings
        self._sees = (self._artifact / seeing.LANGUAGE).is_file()
        self._hears = (self._artifact / hearing.DECODER).is_file()
        if self._sees:
            # Looked at before the engine reads it, which divides by what stands there.
            pixels.read(self._artifact)
        self._prefix: list[int] | None = None
        self._prefix_seen = False
        self.prefix_note = ""
        self._scorer: Scorer | None = None
        self._pipeline: Any = self._open()
        self._tokenizer = self._pipeline.get_tokenizer()
        self._ends = _end_tokens(self._pipeline.get_generation_config())

    def _open(self) -> Any:
        self._gathered = False
        settings = self._settings
        scheduler = openvino_genai.SchedulerConfig()
        # With it the second answer to a prompt skips the prefill, and its time to the first token
        # says nothing: only where that is what is wanted.
        scheduler.enable_prefix_caching = self._prefix is not None
        scheduler.max_num_seqs = 1
        # The prompt goes in chunks of this many tokens: what the footprint's compute counts on.
        scheduler.max_num_batched_tokens = 256
        # Without it the cache grows by copying, old and new at once.
        scheduler.num_kv_blocks = cache_blocks(self._context)
        properties: JsonDict = {
            "KV_CACHE_PRECISION": settings["kv"],
            "ATTENTION_BACKEND": "PA",
            **threads_of(settings),
        }
        added = adapter.given(settings)
        if added and (self._sees or self._hears):
            raise usage(
                f"OpenVINO adds no adapter to a package that takes "
                f"{'pictures' if self._sees else 'sound'}.",
                "Merge the adapter and build the package from that.",
            )
        if added:
            rows = [(openvino_genai.Adapter(path), scale) for path, scale in added]
            properties["adapters"] = openvino_genai.AdapterConfig(rows)
        return self._loaded(scheduler, properties)

    def _loaded(self, scheduler: Any, properties: JsonObject) -> Any:
        kind: Any = openvino_genai.VLMPipeline if self._sees else openvino_genai.LLMPipeline
        kind = SoundPipeline if self._hears else kind
        return load(kind, self._artifact, scheduler, properties)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, control tokens recognised, none added."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data
        return [int(token) for token in ids.reshape(-1)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False)) if ids else ""

    def ends(self) -> frozenset[int]:
        """See packager.session.Session."""
        return frozenset(self._ends)

    def chat_template(self) -> str | None:
        """See packager.session.Session. The text in the artifact, not the engine's own rewriting of
        it."""
        return str(self._tokenizer.get_original_chat_template()) or None

    def rendered(self, conversation: Mapping[str, Any]) -> str:
        """What the engine's own language makes of the template. Raises RuntimeError where it
        cannot."""
        given = dict(conversation)
        messages, tools = given.pop("messages"), given.pop("tools", None)
        opened = given.pop("add_generation_prompt", True)
        rest = {"tools": tools or [], "extra_context": given}
        return str(self._tokenizer.apply_chat_template(messages, opened, **rest))

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

        Raises PackError when prompt and answer together exceed the context, and whatever `on_token`
        raises.
        """
        require_room(len(prompt), max_new_tokens, self._context)
        streamer = Streamer(on_token, self._ends if stop else set())
        config = self._config(max_new_tokens, stop)
        self._remember(prompt)
        pipeline = self._opened()
        if self._sees:
            # It takes no token ids: what its tokenizer would write otherwise, it writes so.
            self._answer(self.decode(prompt), [], config, streamer)
        else:
            ids = np.asarray([list(prompt)], dtype=np.int64)
            pipeline.generate(openvino.Tensor(ids), config, streamer)
        self._gather()
        if streamer.error is not None:
            raise streamer.error
        return streamer.tokens

    def _config(self, max_new_tokens: int, stop: bool) -> Any:
        """Greedy decoding."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = max_new_tokens
        config.do_sample = False
        config.ignore_eos = not stop
        config.apply_chat_template = False
        if stop:
            config.stop_token_ids = self._ends
        return config

    def _opened(self) -> Any:
        """The pipeline, opened again where something else had taken its place."""
        if self._pipeline is None:
            self._scorer = None
            self._pipeline = self._open()
        return self._pipeline

    def _answer(self, prompt: str, pictures: Sequence[Any], config: Any, streamer: Streamer) -> Any:
        """What VLMPipeline makes of a prompt with a place for each picture. Raises PackError
        (usage) for a prompt with other places."""
        _refuse_places(prompt, len(pictures))
        return self._opened().generate(
            prompt, images=list(pictures), generation_config=config, streamer=streamer
        )

    def _gather(self) -> None:
        """Put the weights into huge pages, once: the engine lays them out anew for the first
        answer."""
        if not self._gathered:
            huge_pages.gather()
            self._gathered = True

    def keep_prefix(self, ids: Sequence[int], file: Path) -> None:
        """See packager.measure.prefix.KeepsPrefix. The engine keeps what prompts have in common as
        long as it runs, in blocks; it has no way to write that to a file. Raises PackError (usage)
        for a model that takes sound, whose cache is emptied before each answer."""
        if self._hears:
            raise usage("OpenVINO keeps no state of a model that takes sound.", "Leave --warm out.")
        self._prefix, self._prefix_seen = list(ids), False
        self._pipeline = self._scorer = None

    def state_of(self) -> str:
        """See packager.measure.prefix.KeepsPrefix: nothing outlives the process."""
        return "process"

    def _remember(self, prompt: Sequence[int]) -> None:
        """Say whether the prompt's prefix was there already."""
        self.prefix_note = ""
        if self._prefix is None or list(prompt[: len(self._prefix)]) != self._prefix:
            return
        count = len(self._prefix)
        how = "were in the cache" if self._prefix_seen else "were computed, and are kept until"
        end = "" if self._prefix_seen else " the model is closed"
        self.prefix_note = f"The first {count} tokens of the prompt {how}{end}."
        self._prefix_seen = True

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """What the model says behind every token, in blocks; see packager.session.Session.

        The pipeline gives no logits, so the graph is compiled once more, and the pipeline is closed
        until the next answer: one copy of the weights at a time.
        """
        if not ids or len(ids) > self._context:
            raise usage(
                f"{len(ids)} tokens do not fit a context of {self._context}.",
                "Shorten the text or take a longer context.",
            )
        self._pipeline = None
        if self._scorer is None:
            kind = SeeingScorer if self._sees else Scorer
            kind = HearingScorer if self._hears else kind
            self._scorer = kind(self._artifact, self._settings)
        yield from self._scorer.logits(ids)

    def close(self) -> None:
        """Free the model."""
        self._scorer = None
        del self._pipeline, self._tokenizer


PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
"""What stands for a picture in a prompt. VLMPipeline writes as many tokens in the place of the
middle one as the picture takes."""


def _refuse_places(prompt: str, pictures: int) -> None:
    own = next((place for place in seeing.OWN_PLACES if place in prompt), None)
    if own is None and prompt.count(PLACE) != pictures:
        own = PLACE
    if own is None and pictures:
        # The engine counts these tokens to find its pictures, and looks at no bounds.
        rest = prompt.replace(PLACE, " ")
        own = next((token for token in CONTROL if token in rest), None)
    if own is not None:
        raise usage(f"The prompt writes {own} itself.", "Leave it out.")


def load(kind: Any, artifact: Path, scheduler: Any, properties: JsonObject) -> Any:
    """The pipeline of that class. Raises PackError (bad input) where the engine cannot read the
    artifact."""
    with opening(artifact):
        return kind(artifact, "CPU", scheduler_config=scheduler, **properties)


def _end_tokens(config: Any) -> set[int]:
    """Ids that end a turn, as the artifact's generation_config.json names them."""
    ends = set(config.stop_token_ids)
    return ends | {config.eos_token_id} if config.eos_token_id >= 0 else ends


class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Hands on every token as it comes, except those that end the turn."""

    def __init__(self, on_token: Callable[[int], None], ends: set[int]) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.error: BaseException | None = None
        self._on_token = on_token
        self._ends = ends

    def write(self, token: int | Sequence[int]) -> Any:
        """One token, or several where the engine held some back."""
        try:
            for number in (token,) if isinstance(token, int) else token:
                if number not in self._ends:
                    self.tokens.append(number)
                    self._on_token(number)
        except BaseException as error:
            # An exception must not cross the engine's own thread: it would abort the process.
            self.error = error
            return openvino_genai.StreamingStatus.CANCEL
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""
