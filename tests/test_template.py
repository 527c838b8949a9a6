"""A chat template is code from outside: it renders in a sandbox or not at all."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import template
from packager.checkpoint.template import read, render, render_apart, render_both_apart
from packager.errors import ExitCode, PackError
from packager.shipping.apps import ollama_template
from tests.conftest import REPOSITORY
from tests.support.make_checkpoint import write_tiny

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
        "{{ '\\ud800' }}",
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
    monkeypatch.setattr(template, "SECONDS", 1.0)
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


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_without_end_is_stopped_wherever_one_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a checkpoint is read, compared with its artifact, asked, and translated."""
    folder = write_tiny(tmp_path / "tiny")
    looping = write_tiny(tmp_path / "looping")
    (looping / "chat_template.jinja").write_text(CHATML + LOOP)
    log = tmp_path / "log"
    conversations = {"a question": {"messages": USER}}
    monkeypatch.setattr(template, "SECONDS", 0.5)
    renderings: dict[str, Callable[[], object]] = {
        "a checkpoint": lambda: speech.of_folder(looping),
        "a checkpoint in the gate": lambda: speech.beside_own(
            looping, CHATML, Profile(), conversations, log
        ),
        "an artifact in the gate": lambda: speech.beside_own(
            folder, LOOP, Profile(), conversations, log
        ),
        "a task": lambda: render_both_apart(CHATML, LOOP, conversations, log),
    }
    for place, render_there in renderings.items():
        with pytest.raises(PackError, match="did not end within") as caught:
            render_there()
        assert caught.value.exit_code == ExitCode.INPUT, place
    assert "did not end within" in str(ollama_template.translated(LOOP))


def test_no_module_renders_a_template_in_the_process_that_waits_for_it() -> None:
    """`render` is for jobs that `apart` starts; all others ask for a rendering apart."""
    for path in sorted((REPOSITORY / "packager").rglob("*.py")):
        name = path.relative_to(REPOSITORY / "packager").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "packager.checkpoint.template"
            for alias in node.names
        }
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not {"template.render", "template.render_bounded"} & called, name
        if {"render", "render_bounded"} & imported:
            assert "apart" in imported, name
