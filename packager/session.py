"""The contract of a loaded model: what a runtime's `session` answers, in a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from packager.errors import usage
from packager.json_values import JsonObject

if TYPE_CHECKING:
    import numpy
    import numpy.typing


LOGITS_BLOCK = 128
"""Tokens of one block of a session's logits at most: 78 MB of them for a vocabulary of 151,936."""


def require_room(prompt: int, answer: int, context: int) -> None:
    """Raise PackError (usage) where a prompt and an answer of so many tokens exceed the context."""
    if prompt + answer > context:
        raise usage(
            f"A prompt of {prompt} tokens and an answer of {answer} exceed the "
            f"context of {context}.",
            "Shorten the prompt or build the package with a larger --context.",
        )


class RetrievalSession(Protocol):
    """One loaded embedder or reranker, in a child process."""

    threads: int
    """How many compute."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        """Load the artifact. `settings`: task (embed or rerank), context (int), kv (str), threads
        (int or None), gpu_layers (int, may be absent)."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, control tokens recognised, with those that the artifact adds by
        itself."""

    def plain(self, text: str) -> list[int]:
        """Token ids of a text, control tokens recognised, none added."""

    def embed(self, batch: Sequence[Sequence[int]]) -> numpy.typing.NDArray[numpy.float32]:
        """(texts, hidden): of each text the pooled state as the artifact's own application hands it
        over, normalized. Raises PackError (usage) when one exceeds the context."""

    def score(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """Of each prompt the probability of "yes" against that of "no". Raises PackError (usage)
        when one exceeds the context."""

    def facts(self) -> JsonObject:
        """What the artifact itself says: `pooling` (last, rank or another word), `end` (the id that
        is put behind a text, None for none), `labels` (those of a head, in order) and `template`
        (of a reranker, None without one); `padding` (right or left) where its tokenizer pads;
        `cut` (the id that a longer text ends with) where its tokenizer cuts."""

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True, slots=True)
class Looked:
    """An answer about pictures."""

    tokens: list[int]
    """Those of the answer."""
    prompt_tokens: int
    """Text and pictures together, as they stand in the context."""
    image_tokens: int
    """Those of the pictures among them."""
    encode_s: float
    """Seconds that the image encoder took for all of them."""


@runtime_checkable
class RendersChats(Protocol):
    """What a Session has besides where its engine renders chat templates itself."""

    def rendered(self, conversation: Mapping[str, Any]) -> str | None:
        """The prompt in the engine's own template language; None where it takes no such variable.

        `conversation` has `messages` and what else a template gets. Raises RuntimeError where it
        cannot.
        """


@runtime_checkable
class Stamped(Protocol):
    """A session that computes on another machine and brings the times of that machine's own clock:
    the way here is no part of them."""

    def began(self) -> float:
        """When the last `generate` began to compute, in seconds."""

    def stamp(self) -> float:
        """When the token that `on_token` was last called for was there, by the same clock."""


class Session(Protocol):
    """One loaded model, in a child process. Greedy decoding only: the same prompt gives the same
    tokens."""

    def __init__(self, artifact: str, settings: JsonObject) -> None:
        """Load the artifact. `settings`: context (int), kv (str), threads (int or None), gpu_layers
        (int, may be absent), adapters (rows of `path` and `scale`, may be absent)."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, control tokens recognised, none added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""

    def ends(self) -> frozenset[int]:
        """Ids at which the artifact ends a turn."""

    def chat_template(self) -> str | None:
        """The chat template in the artifact, as the engine reads it; None where there is none."""

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> list[int]:
        """Decode greedily from a cold cache, calling `on_token` as each token is there;
        `stop=False` runs past end-of-turn.

        The token that ends the turn and so stops the answer is no part of it.
        """

    def logits(self, ids: Sequence[int]) -> Iterator[numpy.typing.NDArray[numpy.float32]]:
        """What the model says behind every one of `ids`, as read from a cold cache: blocks (tokens,
        vocabulary) of float32, in order.

        At most LOGITS_BLOCK tokens a block; the array may be the engine's own and hold until the
        next block is asked for. Columns beyond the vocabulary are padding of the engine's. Raises
        PackError (usage) when the ids exceed the context.
        """

    def close(self) -> None:
        """Free the model."""


@runtime_checkable
class VisionSession(Session, Protocol):
    """A Session that takes pictures besides. The image encoder is loaded when the
    first of them comes.

    A picture is a mapping: its `width` and `height` in pixels, and its 8 bits of red, green and
    blue, row by row from the top, as the bytes `data` or in a file at `path`.
    """

    def open_encoder(self) -> float:
        """Load the image encoder, where that was not done yet; seconds that it took."""

    def image_tokens(self, width: int, height: int) -> int:
        """Tokens that a picture of so many pixels takes."""

    def image_side(self, tokens: int) -> int:
        """Pixels of a side of the square that is not resized and takes that many tokens, a square
        number. Raises PackError (usage) where the limits of this session do not let it."""

    def prompt_tokens(self, texts: Sequence[str], pictures: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a prompt as `look` takes it; of the pictures their sizes are enough."""

    def encode_image(self, picture: Mapping[str, Any]) -> float:
        """Encode a picture; seconds that the encoder took, reading and resizing left out."""

    def embed_image(self, picture: Mapping[str, Any]) -> numpy.typing.NDArray[numpy.float32]:
        """(tokens, width) of what the encoder hands to the decoder, deepstack's parts behind one
        another."""

    def image_places(
        self, columns: int, rows: int, side: int
    ) -> numpy.typing.NDArray[numpy.int64] | None:
        """(3, tokens + 1): time, height and width at which the engine places the tokens of a
        picture of so many image tokens, `side` pixels each, at the start of a prompt, and the text
        after it. None where the engine does not say."""

    def answer_logits(
        self, texts: tuple[str, str], picture: Mapping[str, Any], answer: Sequence[int]
    ) -> numpy.typing.NDArray[numpy.float32]:
        """(answer, vocabulary): what the model says where each token of `answer` follows, behind a
        text, a picture of whole tokens and a text as `look` takes them, from a cold cache. Raises
        PackError (usage) when all that exceeds the context."""

    def look(
        self,
        texts: Sequence[str],
        pictures: Sequence[Mapping[str, Any]],
        max_new_tokens: int,
        on_token: Callable[[int], None],
        *,
        stop: bool = True,
    ) -> Looked:
        """Decode greedily from a cold cache behind texts with pictures between them: the first text
        stands before the first picture, the last one behind the last.

        Control tokens in texts are recognised; those that stand around a picture are set by the
        session. Otherwise as `Session.generate`.
        """
