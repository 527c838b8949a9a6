"""A sound as the chat template of a checkpoint writes it, and what the answer says."""

from __future__ import annotations

from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject

PLACE = "<|audio_start|><|audio_pad|><|audio_end|>"
"""What the template of Qwen3-ASR writes for a sound (its chat_template.json). Engines set the
tokens around a sound themselves, and as many in place of the middle one as the sound takes."""
ASKED_PLACE = "<|audio_bos|><|AUDIO|><|audio_eos|>"
"""What that of Qwen2-Audio writes (processing_qwen2_audio.py of transformers)."""
CONTROL = (
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<asr_text>"),
    *("<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>"),
)

_TEXT = "<asr_text>"
_LANGUAGE = "language "

LANGUAGES = {
    **{"ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek"},
    **{"en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fil": "Filipino"},
    **{"fr": "French", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian"},
    **{"ja": "Japanese", "ko": "Korean", "mk": "Macedonian", "ms": "Malay", "nl": "Dutch"},
    **{"pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish"},
    **{"th": "Thai", "tr": "Turkish", "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese"},
}
"""What Qwen3-ASR writes down, by ISO 639 (the model's README: supported languages)."""


def messages(context: str, *, asked: bool = False) -> list[JsonObject]:
    """One turn of the user that is the sound alone; `context`, names and words that may occur in
    it, is the system's, as Qwen3-ASR's own package has it. Where a sound is `asked` about, it is
    the question, which stands behind the sound.

    Raises PackError (usage) for a context that writes control tokens of sound itself.
    """
    written = next((token for token in CONTROL if token in context), None)
    if written is not None:
        raise usage(
            f"The prompt writes {written} itself.",
            "Leave it out: the chat template writes it where the sound goes.",
        )
    part: JsonObject = {"type": "audio", "audio": ""}
    if asked:
        question: list[JsonObject] = [{"type": "text", "text": context}] if context else []
        return [{"role": "user", "content": [part, *question]}]
    sound: JsonObject = {"role": "user", "content": [part]}
    return [*([{"role": "system", "content": context}] if context else []), sound]


def opened_in(language: str) -> str:
    """The beginning of an answer in a language, one of LANGUAGES' names: behind it the model writes
    the text alone (qwen_asr's _build_text_prompt)."""
    return f"{_LANGUAGE}{language}{_TEXT}"


def around(prompt: str) -> list[str]:
    """The texts before and after the sound of a rendered prompt. Raises PackError (exit code 6) for
    a template that has no one place for it."""
    texts = prompt.split(ASKED_PLACE if ASKED_PLACE in prompt else PLACE)
    if len(texts) != 2 or any(token in text for token in CONTROL for text in texts):
        raise no_place(f"it writes {len(texts) - 1} places for a sound")
    return texts


def no_place(why: str) -> PackError:
    """The sentence for a package whose template does not take sound."""
    return bad_input(
        f"The chat template of the package does not take sound: {why}.",
        "Build it again with the template of the model's own repository.",
    )


class Transcript:
    """An answer as it comes: `language English<asr_text>` and what was said. `add` gives what is
    sure to be said. An answer that was opened in a language is all text."""

    def __init__(self, language: str | None = None) -> None:
        self.language = language
        self.said = ""
        self._held = ""
        self._open = language is not None

    def add(self, piece: str) -> str:
        """What may be shown after one more piece of the answer."""
        if self._open:
            self.said += piece
            return piece
        self._held += piece
        head, found, rest = self._held.partition(_TEXT)
        if found:
            named = head.strip().removeprefix(_LANGUAGE).strip()
            # What the model says of silence (qwen_asr, parse_asr_output).
            self.language = named if named.lower() not in ("", "none") else None
            return self._opened(rest)
        begins = self._held.startswith(_LANGUAGE) or _LANGUAGE.startswith(self._held)
        # Without the mark an answer is all text, once it cannot be the name of a language.
        return "" if begins and len(self._held) < _LONGEST else self._opened(self._held)

    def end(self) -> str:
        """What is left at the end of the answer."""
        return "" if self._open else self._opened(self._held)

    def _opened(self, text: str) -> str:
        self._open, self._held = True, ""
        self.said += text
        return text


_LONGEST = 64
"""Characters of `language` and any name of one."""
