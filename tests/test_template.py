"""A chat template is code from outside: it renders in a sandbox or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.checkpoint import template
from packager.checkpoint.template import read, render, render_apart
from packager.errors import ExitCode, PackError

pytestmark = pytest.mark.slow

USER = [{"role": "user", "content": "Hi"}]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_is_rendered_with_its_messages() -> None:
    assert render(CHATML, USER) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, USER, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception('no system role') }}",
        "{% for",
        "{{ 1 // 0 }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_what_the_sandbox_forbids_ends_in_a_sentence(attack: str) -> None:
    with pytest.raises(PackError, match="chat template cannot be rendered") as caught:
        render(attack, USER)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) % 7 }}",
        "{{ 'x' * 10 ** 11 }}",
        "{{ 'x' * 10 ** 8 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    ],
    ids=["loop", "power", "memory", "length", "recursion", "nesting"],
)
def test_a_bomb_ends_in_a_sentence_whatever_it_consumes(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "SECONDS", 2.0)
    with pytest.raises(PackError, match="chat template cannot be rendered") as caught:
        render_apart(bomb, USER, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.INPUT


def test_rendered_apart_it_is_the_same_text(tmp_path: Path) -> None:
    switch = CHATML + "{% if enable_thinking %}<think>{% endif %}"
    apart = render_apart(switch, USER, tmp_path / "log", enable_thinking=True)
    assert apart == render(switch, USER, enable_thinking=True)
    assert apart.endswith("<think>")


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe", "is not text"), (b"x" * (1 << 21), "no chat template has")]
)
def test_a_file_that_cannot_be_a_template_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(data)
    with pytest.raises(PackError, match=words):
        read(tmp_path / "chat_template.jinja")


@pytest.mark.parametrize(
    "name", ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-QwQ-32B", "Qwen3.5-4B"]
)
def test_the_genuine_templates_render_a_question(shared: Path, name: str) -> None:
    text = render(
        (shared / "qwen" / "templates" / f"{name}.jinja").read_text(), USER, enable_thinking=False
    )
    assert "<|im_start|>user\nHi<|im_end|>\n" in text
    assert "<|im_start|>assistant\n" in text
