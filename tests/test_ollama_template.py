"""Ollama gets the prompts of the checkpoint's own template, byte for byte, or is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager.chat.profile import Profile
from packager.chat.templates import portable
from packager.checkpoint.first_generation import CHAT_TEMPLATE
from packager.checkpoint.template import render
from packager.shipping.apps.ollama_template import (
    CONVERSATIONS,
    OllamaChat,
    as_jinja_takes_it,
    translated,
)
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import CHATML

pytestmark = pytest.mark.slow

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3" / "tokenizer_config.json"
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
EVERY_STATE = (None, True, False)

DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}"
    "{% endif %}" + CHATML
)
OPENED = CHATML.replace(
    "assistant\\n' }}",
    "assistant\\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% else %}{{ '<think>\\n' }}{% endif %}",
)
BRACES = DEFAULT_SYSTEM.replace("You are Qwen.", '{{"{{"}} and """ stay')
BRACES = BRACES.replace('\'<|im_start|>system\\n{{"{{"}}', "'<|im_start|>system\\n{' + '{")


def templates() -> dict[str, str]:
    """Ours, one per habit of Qwen's, and the genuine ones where they are at hand."""
    config = json.loads(TINY.read_text())
    profile = Profile("off", None, 'Be "brief".\nAlways. 简短', tuple(TOOLS))
    found = {
        "plain": CHATML,
        "a default system turn": DEFAULT_SYSTEM,
        "an opened answer": OPENED,
        "what ends a literal": BRACES,
        "the first generation": CHAT_TEMPLATE,
        "tiny": config["chat_template"],
        "tiny under a profile": portable(
            {"default": config["chat_template"]}, {}, profile.statements()
        )
        or "",
    }
    folder = REPOSITORY.parent / "shared" / "qwen" / "templates"
    return found | {path.name: path.read_text() for path in sorted(folder.glob("*.jinja"))}


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that renders as Ollama does."""
    if shutil.which("go") is None:
        pytest.skip("needs go")
    program = tmp_path_factory.mktemp("go") / "render"
    source = REPOSITORY / "tests" / "ollama_render.go"
    home = {
        "GOCACHE": str(program.parent / "cache"),
        "GOFLAGS": "-mod=mod",
        "HOME": str(program.parent),
    }
    subprocess.run(
        ["go", "build", "-o", program, source],
        check=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/go/bin", **home},
    )
    yield program


def rendered(go: Path, requests: list[dict[str, Any]]) -> list[str]:
    work = subprocess.run(
        [go], input=json.dumps(requests).encode(), capture_output=True, check=True
    )
    texts: list[str] = json.loads(work.stdout)
    return texts


def test_go_writes_the_same_prompts_as_the_checkpoints_own_template(go: Path) -> None:
    requests, wanted, names = [], [], []
    for name, jinja in templates().items():
        chat = translated(jinja)
        assert isinstance(chat, OllamaChat), (name, chat)
        for which, messages in CONVERSATIONS.items():
            for think in EVERY_STATE if which not in chat.limits else ():
                given = as_jinja_takes_it(messages, think)
                wanted.append(render(jinja, given.pop("messages"), **given))
                requests.append({"template": chat.template, "messages": messages, "think": think})
                names.append((name, which, think))
    assert len(requests) >= 150
    for name, text, want in zip(names, rendered(go, requests), wanted, strict=True):
        assert text == want, name


def test_a_tools_turn_ends_in_an_error_and_not_in_a_prompt_without_it(go: Path) -> None:
    chat = translated(CHATML)
    assert isinstance(chat, OllamaChat)
    messages = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]
    (text,) = rendered(go, [{"template": chat.template, "messages": messages, "think": None}])
    assert text.startswith("error:") and "no tool turns" in text


def test_a_system_message_stands_in_the_prompt_once(go: Path) -> None:
    chat = translated(DEFAULT_SYSTEM)
    assert isinstance(chat, OllamaChat)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    (text,) = rendered(go, [{"template": chat.template, "messages": messages, "think": None}])
    assert (
        text.count("Be brief.") == 1 and text.count("system\n") == 1 and "You are Qwen" not in text
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (CHATML.replace("m.content", "m.content | upper"), "every message once"),
        ("{{ strftime_now('%Y') }}" + CHATML, "current date"),
        (
            CHATML.replace("m.content +", "m.content + loop.index | string +"),
            "cannot say it (a system prompt)",
        ),
        ("{% for", "every message once"),
    ],
)
def test_what_gos_language_cannot_say_is_refused_with_the_reason(template: str, words: str) -> None:
    assert words in str(translated(template))


def test_white_space_that_a_template_cuts_off_is_named_as_a_limit() -> None:
    chat = translated(CHATML.replace("m.content", "m.content | trim"))
    assert isinstance(chat, OllamaChat)
    assert chat.limits == ("white space around a message",)
