"""A byte-level BPE tokenizer of our own making, of any vocabulary size, with Qwen's pre-tokenizer
and control tokens.

Its merges join a consonant with a vowel, such syllables to words, and a space with words. No merge
overlaps with another, so every token of the vocabulary is what its own text is encoded to, and
decodes to printable text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from packager.checkpoint.control_tokens import ControlToken
from packager.checkpoint.tiktoken import byte_letters
from packager.errors import usage
from packager.json_values import JsonObject

# Source: pre_tokenizer of tokenizer.json in Qwen/Qwen3-0.6B; the same in every Qwen from 1.5 to 3.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML: system, user and assistant turns."""

PICTURE_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}",
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}",
)
"""The same with pictures among the parts of a message, as Qwen2-VL's own writes them."""

_PLACES = ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_bos|><|IMAGE|><|vision_eos|>")
"""A picture there, and as Qwen2.5-Omni's own template writes it."""

SOUND_TEMPLATE = PICTURE_TEMPLATE.replace(
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}",
    "{% if part['type'] == 'audio' %}{{ '<|audio_start|><|audio_pad|><|audio_end|>' }}",
)
"""The same with sound, which stands in a prompt as Qwen3-ASR's own template writes it."""

QUESTION_TEMPLATE = PICTURE_TEMPLATE.replace(
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}",
    "{% if part['type'] == 'audio' %}{{ 'Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\\n' }}",
)
"""The same with one sound that is asked about, as the processor of Qwen2-Audio writes it
(processing_qwen2_audio.py of transformers 5.5)."""

_OF_SOUND = {"qwen3_asr": SOUND_TEMPLATE, "qwen2_audio": QUESTION_TEMPLATE}

_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"
_BYTE_LEVEL: JsonObject = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
}


def byte_alphabet() -> list[str]:
    """One printable character per byte, in the order of GPT-2's vocabulary: printable bytes as they
    are, then the others from U+0100."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


_SYLLABLES = len(_CONSONANTS) * len(_VOWELS)
_MOST = 2 * _SYLLABLES + 2 * _SYLLABLES**2 + _SYLLABLES**3


def _merges() -> Iterator[tuple[str, str]]:
    """All `_MOST` merges, best first; each makes one new token."""
    space = "Ġ"  # the space in the byte alphabet
    syllables = [consonant + vowel for consonant, vowel in product(_CONSONANTS, _VOWELS)]
    yield from product(_CONSONANTS, _VOWELS)
    yield from ((space, syllable) for syllable in syllables)
    yield from ((space + first, second) for first, second in product(syllables, syllables))
    yield from product(syllables, syllables)
    yield from (
        (space + first + second, third)
        for first, second, third in product(syllables, syllables, syllables)
    )


def _first_merges(base_vocab: int) -> list[tuple[str, str]]:
    if not 0 <= base_vocab - 256 <= _MOST:
        raise usage(
            f"A synthetic vocabulary of {base_vocab} tokens cannot be made.",
            "256 to 1.1 million are possible.",
        )
    return list(islice(_merges(), base_vocab - 256))


def tiktoken_ranks(base_vocab: int) -> bytes:
    """qwen.tiktoken with the same `base_vocab` byte-level tokens, for the first generation."""
    bytes_of = {letter: bytes([byte]) for byte, letter in byte_letters().items()}
    words = byte_alphabet() + [left + right for left, right in _first_merges(base_vocab)]
    lines = (
        base64.b64encode(b"".join(bytes_of[letter] for letter in word)) + b" %d\n" % rank
        for rank, word in enumerate(words)
    )
    return b"".join(lines)


def tokenizer_json(
    base_vocab: int, control: Sequence[ControlToken], task: str = "generate"
) -> bytes:
    """tokenizer.json with `base_vocab` byte-level tokens and the control tokens at the ids behind
    them. For `embed` the first control token is appended to every text, for `rerank` yes and no are
    one token each."""
    merges = _first_merges(base_vocab)
    if task == "rerank" and merges:
        # The syllables ye and no are tokens already.
        merges[-1] = ("ye", "s")
    words = byte_alphabet() + [left + right for left, right in merges]
    return byte_level_bpe(words, merges, control, ends=task == "embed")


def _appending(token: ControlToken, number: int) -> JsonObject:
    """The post-processor of Qwen3-Embedding: the control token behind every text."""
    piece: list[JsonObject] = [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": token.text, "type_id": 0}},
    ]
    template: JsonObject = {
        "type": "TemplateProcessing",
        "single": piece,
        "pair": [*piece, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token.text: {"id": token.text, "ids": [number], "tokens": [token.text]}},
    }
    return {"type": "Sequence", "processors": [_BYTE_LEVEL, template]}


def byte_level_bpe(
    words: Sequence[str],
    merges: Sequence[tuple[str, str]],
    control: Sequence[ControlToken],
    *,
    ends: bool = False,
) -> bytes:
    """tokenizer.json with `words` by id, Qwen's pre-tokenizer, and the control tokens at the ids
    behind them; with `ends` the first of these behind every text."""
    added = [{"id": len(words) + index, **_flags(token)} for index, token in enumerate(control)]
    vocab = {word: index for index, word in enumerate(words)}
    processor = _appending(control[0], len(words)) if ends else _BYTE_LEVEL
    return definition(vocab, [list(pair) for pair in merges], added, processor=processor)


def definition(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    added: Sequence[JsonObject],
    expression: str = QWEN_PATTERN,
    processor: JsonObject = _BYTE_LEVEL,
) -> bytes:
    """tokenizer.json of the ordinary tokens `vocab` with their ids, `merges` best first and the
    rows of the tokens `added`; `expression` splits a text first."""
    tokenizer: JsonObject = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": expression},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _BYTE_LEVEL,
            ],
        },
        "post_processor": processor,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocab),
            "merges": [list(pair) for pair in merges],
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()


def tokenizer_config(
    base_vocab: int,
    control: Sequence[ControlToken],
    context: int,
    *,
    pictures: bool = False,
    sound: str | None = None,
) -> JsonObject:
    """tokenizer_config.json as Qwen's own has it, with the ChatML template, where pictures or sound
    come in the one that takes them; `context` is the longest input in tokens, `sound` the
    generation of the audio encoder where there is one."""
    template = PICTURE_TEMPLATE if pictures else CHAT_TEMPLATE
    if any(token.text == "<|IMAGE|>" for token in control):
        template = template.replace(*_PLACES)
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(base_vocab + index): _flags(token) for index, token in enumerate(control)
        },
        "additional_special_tokens": [token.text for token in control[1:] if token.special],
        "bos_token": None,
        "chat_template": _OF_SOUND.get(sound or "", template),
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": context,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def added_token(text: str, *, special: bool) -> JsonObject:
    """The flags of an added token as Qwen's own have them: cut out of a text as it stands."""
    sides = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {"content": text, **sides, "special": special}


def _flags(token: ControlToken) -> JsonObject:
    return added_token(token.text, special=token.special)
