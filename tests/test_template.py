"""A chat template is code from outside: it renders in a sandbox or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.template import digest, render

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


def test_the_digest_changes_with_the_text() -> None:
    assert digest(CHATML) != digest(CHATML + " ")


@pytest.mark.parametrize("name", ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-QwQ-32B", "Qwen3.5-4B"])
def test_the_genuine_templates_render_a_question(shared: Path, name: str) -> None:
    text = render((shared / "qwen" / "templates" / f"{name}.jinja").read_text(), USER, enable_thinking=False)
    assert "<|im_start|>user\nHi<|im_end|>\n" in text
    assert "<|im_start|>assistant\n" in text
