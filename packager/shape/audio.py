"""The audio encoders of Qwen3-ASR and Qwen2-Audio: their widths, read from the audio_config of a
config.json, the tensors that follow from them, and how sound becomes tokens.

Sources: configuration_qwen3_asr.py, modeling_qwen3_asr.py and processing_qwen3_asr.py of
QwenLM/Qwen3-ASR; the names are those of its repositories, `audio_tower.` and what comes after it.
What is Qwen2-Audio's own is in packager.shape.whisper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from packager.errors import bad_input
from packager.limits import LAYERS, TOWER_WIDTH
from packager.shape import whisper
from packager.shape.fields import Fields
from packager.shape.speaking import HEARD_WRONGLY, HEARS_WELL

HEARING = ("qwen3_asr", "qwen2_audio")
"""Model types whose audio encoder is built."""

PREFIX = "audio_tower."
RATE, HOP, FRAME, MELS = 16_000, 160, 400, 128
"""Samples per second, samples from one frame to the next, samples of a frame, and mel bands: those
of Whisper's features (preprocessor_config.json), and fixed in the engine."""
CHUNK_FRAMES, CHUNK_TOKENS, WINDOW_CHUNKS = 100, 13, 8
"""Frames that the convolutions take at once, a second of sound; what becomes of them; and how many
such chunks attention reaches over (n_window 50, n_window_infer 800). Fixed in the engine."""
POSITIONS = 1500
"""Rows of the sinusoids that the engine's file holds; each chunk uses the first 13."""

_BANDS = 16
"""Mel bands that are left after three convolutions of stride 2."""
# What both configuration classes take where config.json is silent.
_DEFAULTS = {
    "d_model": 1280,
    "encoder_ffn_dim": 5120,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "downsample_hidden_size": 480,
    "output_dim": 3584,
}
_FIXED: Mapping[str, tuple[int, int]] = {
    "num_mel_bins": (128, MELS),
    "max_source_positions": (1500, POSITIONS),
}
_WINDOWS: Mapping[str, tuple[int, int]] = {
    "n_window": (100, CHUNK_FRAMES // 2),
    "n_window_infer": (400, CHUNK_FRAMES * WINDOW_CHUNKS),
}
"""The class's default and the only value that is computed."""


class Decoder(Protocol):
    """What an audio encoder is held against of the text decoder that it serves."""

    @property
    def model_type(self) -> str:
        """As config.json says it."""

    @property
    def hidden(self) -> int:
        """The width of its states."""


@dataclass(frozen=True, slots=True)
class AudioTower:
    """An audio encoder. Source: the audio_config of the checkpoint's config.json.

    `channels` are those of the convolutions over planes, 0 where there are none (Qwen2-Audio);
    `out` is the width of an audio token, which is that of the decoder; `generation` the model type
    that it is of, one of `HEARING`.
    """

    hidden: int
    intermediate: int
    depth: int
    heads: int
    channels: int
    out: int
    generation: str = "qwen3_asr"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AudioTower:
        """The inverse of dataclasses.asdict. Raises msgspec.ValidationError for other fields."""
        # Late: the catalogue is read by commands that need none of it.
        import msgspec

        return msgspec.convert(fields, cls)

    @property
    def window(self) -> int | None:
        """Seconds that every sound is filled up to, and that none may exceed; None where each
        second takes its own tokens."""
        return whisper.SECONDS if self.generation == "qwen2_audio" else None

    def tokens(self, seconds: int) -> int:
        """Tokens that the engine makes of so many seconds of sound."""
        return audio_tokens(seconds) if self.window is None else whisper.TOKENS

    def parameters(self) -> int:
        """All weights of the encoder."""
        if self.window is not None:
            return sum(prod(size) for _, size in self.tensors())
        layer = sum(prod(size) for _, size in _layer(self))
        around = sum(prod(size) for part in (_convolutions, _end) for _, size in part(self))
        return around + self.depth * layer

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor."""
        if self.window is not None:
            yield from whisper.tensors(self, PREFIX)
            return
        for name, size in _convolutions(self):
            yield PREFIX + name, size
        for layer in range(self.depth):
            for name, size in _layer(self):
                yield f"{PREFIX}layers.{layer}.{name}", size
        for name, size in _end(self):
            yield PREFIX + name, size

    def operations(self, seconds: int) -> float:
        """Operations for so many seconds of sound; a multiply-add counts as two."""
        if self.window is not None:
            return whisper.operations(self)
        # Height (mel bands) and width (frames) of what each convolution gives.
        sizes = ((64, 50), (32, 25), (_BANDS, CHUNK_TOKENS))
        ins = (1, self.channels, self.channels)
        stem = sum(
            9 * ins[place] * self.channels * height * width
            for place, (height, width) in enumerate(sizes)
        )
        out = _BANDS * self.channels * self.hidden
        layers = self.depth * sum(prod(size) for _, size in _layer(self))
        ends = sum(prod(size) for _, size in _end(self))
        attention = 2 * self.depth * self.hidden * CHUNK_TOKENS * WINDOW_CHUNKS
        return 2.0 * seconds * (stem + CHUNK_TOKENS * (out + layers + ends + attention))


def audio_tokens(seconds: int) -> int:
    """Tokens of so many seconds of sound as Qwen3-ASR takes them, by which needs are planned;
    `AudioTower.tokens` knows those of an encoder."""
    return CHUNK_TOKENS * seconds


def _linear(name: str, out: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, width)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _convolutions(tower: AudioTower) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number in (1, 2, 3):
        width = 1 if number == 1 else tower.channels
        yield f"conv2d{number}.weight", (tower.channels, width, 3, 3)
        yield f"conv2d{number}.bias", (tower.channels,)
    yield "conv_out.weight", (tower.hidden, _BANDS * tower.channels)


def _layer(tower: AudioTower) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("q", "k", "v", "out"):
        yield from _linear(f"self_attn.{part}_proj", tower.hidden, tower.hidden)
    yield from _norm("self_attn_layer_norm", tower.hidden)
    yield from _linear("fc1", tower.intermediate, tower.hidden)
    yield from _linear("fc2", tower.hidden, tower.intermediate)
    yield from _norm("final_layer_norm", tower.hidden)


def _end(tower: AudioTower) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm("ln_post", tower.hidden)
    yield from _linear("proj1", tower.hidden, tower.hidden)
    yield from _linear("proj2", tower.out, tower.hidden)


def audio_tower_of(config: Mapping[str, Any], decoder: Decoder, where: str) -> AudioTower:
    """The audio encoder that a config.json describes beside the text `decoder`.

    Raises PackError (exit code 6) naming `where` and the key: for a model type without one, a width
    that does not fit to the decoder, and for what no engine computes.
    """
    if (reason := HEARD_WRONGLY.get(decoder.model_type)) is not None:
        raise bad_input(
            f"{where} describes an audio encoder that is not built: {reason}.",
            f"Take {HEARS_WELL} for sound, or build this one with --modality vision or text.",
        )
    if decoder.model_type not in HEARING:
        raise bad_input(
            f"{where} describes no audio encoder that is built (model_type "
            f"{decoder.model_type!r}).",
            "Name a checkpoint that takes sound, such as Qwen3-ASR, or build the text model alone "
            "with --modality text.",
        )
    later = decoder.model_type == "qwen3_asr"
    outer = Fields(config, where)
    fields = (outer.table("thinker_config") if later else outer).table("audio_config")
    for key, (default, only) in {**_FIXED, **(_WINDOWS if later else {})}.items():
        if (value := fields.count(key, default)) != only:
            raise fields.wrong(key, f"is {value!r}, and only {only!r} is computed")
    if (activation := fields.text("activation_function", "gelu")) != "gelu":
        raise fields.wrong("activation_function", f"is {activation!r}, and only 'gelu' is computed")
    if fields.flag("scale_embedding", False):
        raise fields.wrong("scale_embedding", "is true, and only false is computed")

    def width(key: str) -> int:
        width_read = fields.count(key, _DEFAULTS[key])
        if width_read > TOWER_WIDTH:
            raise fields.wrong(key, f"is {width_read}, and no encoder has more than {TOWER_WIDTH}")
        return width_read

    hidden, heads = width("d_model"), width("encoder_attention_heads")
    # Qwen2-Audio's projector ends as wide as the decoder, and no key says so.
    out = width("output_dim") if later else decoder.hidden
    if out != decoder.hidden:
        raise fields.wrong("output_dim", f"is {out}, and the text decoder is {decoder.hidden} wide")
    # The sinusoids are halves of sines and of cosines.
    if hidden % heads or hidden % 2 or hidden < 4:
        raise fields.wrong(
            "encoder_attention_heads", f"is {heads}, which cannot share out {hidden} elements"
        )
    depth = fields.count("encoder_layers", _DEFAULTS["encoder_layers"])
    if depth > LAYERS:
        raise fields.wrong("encoder_layers", f"is {depth}, and no encoder has more than {LAYERS}")
    return AudioTower(
        hidden=hidden,
        intermediate=width("encoder_ffn_dim"),
        depth=depth,
        heads=heads,
        channels=width("downsample_hidden_size") if later else 0,
        out=out,
        generation=decoder.model_type,
    )


# Any: the JSON of a config.json.
def audio_config(tower: AudioTower) -> dict[str, Any]:
    """The audio_config of an encoder, which `audio_tower_of` turns back into the same one."""
    if tower.window is not None:
        return whisper.config(tower)
    return {
        "model_type": "qwen3_asr_audio_encoder",
        "activation_function": "gelu",
        "conv_chunksize": 500,
        "d_model": tower.hidden,
        "downsample_hidden_size": tower.channels,
        "encoder_attention_heads": tower.heads,
        "encoder_ffn_dim": tower.intermediate,
        "encoder_layers": tower.depth,
        "max_source_positions": POSITIONS,
        "n_window": CHUNK_FRAMES // 2,
        "n_window_infer": CHUNK_FRAMES * WINDOW_CHUNKS,
        "num_mel_bins": MELS,
        "output_dim": tower.out,
        "scale_embedding": False,
    }
