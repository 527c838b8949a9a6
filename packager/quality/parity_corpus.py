"""What the engines' tokenizers and templates are compared on: the shipped text, awkward texts, and
conversations of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from packager.json_values import JsonObject

_SHIPPED = Path(__file__).resolve().parent / "text"

TEXTS: tuple[str, ...] = (
    "Hello, world!",
    " leading space, trailing space ",
    "tabs\tand\r\nline ends\n\n\nof every\rkind \n  x\n",
    "          ten spaces, then    four",
    "I'll say it's what we'd've done; THEY'RE SURE, I'M NOT",
    "0123456789 3.14159 1,000,000 -17 ½ ² Ⅷ ٣٤٥",
    'don\'t_stop: snake_case, camelCase, kebab-case; a/b\\c {x: [1, 2]} <tag attr="v">',
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ✈️ ❤️‍🔥 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "今天天气很好，我们去公园吧。「繁體」もじ カタカナ 한국어",
    "Ünïcödé: naïve café, smörgåsbord, ﬁnance, ﬂow, Å ộ",
    "العربية עברית हिन्दी ไทย தமிழ் Ελληνικά Русский",
    "zero\u200bwidth\u200djoiner\ufeffmark soft\u00adhyphen nbsp\u00a0 thin\u2009space "
    "ideographic\u3000space",
    "broken on the way: \ufffd\ufffd\ufffd",
    "∑ᵢ xᵢ² ≤ ∫₀^∞ e^{−x} dx → 𝕏 ∈ ℝⁿ",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>text <|im_end|> text<|im_end|>",
    "<|im_start| > <|im_star <|im_end|<|im_end|>|> im_start",
    '<think>\n\n</think>\n\n<tool_call>\n{"name": "f"}\n</tool_call>',
)
"""Each asks something of a byte-level BPE: white space, contractions, digits, many scripts, control
tokens whole and cut."""

DECOMPOSED = "combining: e\u0301 n\u0303 a\u030a o\u0302\u0323 q\u0307\u0323"
"""Letters with combining marks that Unicode's normal form C joins or puts in another order, as
Qwen's tokenizers ask for.

Text from keyboards and files is composed almost always; not every engine does this step.
"""

_ASKED: list[JsonObject] = [{"role": "user", "content": "How are you?"}]
_TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city — 天气",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CALL: JsonObject = {
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "København"}},
}

CONVERSATIONS: dict[str, JsonObject] = {
    "one question": {"messages": _ASKED},
    "a system prompt": {"messages": [{"role": "system", "content": "Be brief. 简短。"}, *_ASKED]},
    "several turns": {
        "messages": [
            *_ASKED,
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nWell."},
            {"role": "user", "content": "And now?\n"},
        ]
    },
    "no answer asked for": {
        "messages": [*_ASKED, {"role": "assistant", "content": "Well."}],
        "add_generation_prompt": False,
    },
    "without thinking": {"messages": _ASKED, "enable_thinking": False},
    "tools": {"messages": _ASKED, "tools": [_TOOL]},
    "a tool's answer": {
        "messages": [
            *_ASKED,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "content": '{"rain": true}'},
        ],
        "tools": [_TOOL],
    },
}
"""Name -> what a chat template gets."""


def shipped_texts() -> Iterator[str]:
    """The parts of the text that divergence is measured on."""
    for path in sorted(_SHIPPED.glob("*.txt")):
        yield path.read_text(encoding="utf-8")
