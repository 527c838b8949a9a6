"""Templates are rendered with all that transformers gives them, and say the same in every
engine."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packager.chat import speech
from packager.chat.profile import Profile
from packager.chat.special_tokens import special_tokens
from packager.chat.templates import portable
from packager.checkpoint.chat_templates import templates_of
from packager.checkpoint.template import render
from packager.errors import ExitCode, PackError
from packager.quality.parity_corpus import CONVERSATIONS
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import CHATML

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
TOOL = {
    "type": "function",
    "function": {"name": "now", "description": "die Uhr — 时", "parameters": {}},
}

TEMPLATES: dict[str, str] = {
    "generation": "{% for m in messages %}{% generation %}\n  {{ m.content }}\n{% endgeneration "
    "%}{% endfor %}",
    "generation, white space cut": "{% for m in messages %} {%- generation -%} {{ m.content }} {%- "
    "endgeneration %} x{% endfor %}",
    "tojson with keywords": "{{ tools | tojson(ensure_ascii=False) }}{{ tools | tojson(indent=2, "
    "sort_keys=True) }}"
    "{{ tools | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}|{{ image_token "
    "}}",
    "special tokens by name": "{{ eos_token + 'x' if eos_token is defined else 'none' }}",
    "tools that are not there": "{% if tools is not none %}tools{% endif %}{% if documents is none "
    "%}-{% endif %}",
    "tools not defined": "{{ tools is defined }}{{ documents is defined }}{{ unheard_of is defined "
    "}}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ "
    "m.content }}{% endfor %}",
    "spaces and lines at its edges": "  {% if messages %}\n\n  a{% endif %}\n\n",
    "a line at its begin": "\n{{ eos_token }}{{ messages[0].content }}\n",
    "dates": "{{ strftime_now('%Y') }}",
    "refusing": "{{ raise_exception('no ' + messages[0].role) }}",
}
CONFIGS: list[dict[str, Any]] = [
    {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None},
    {
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
        "image_token": "<|image_pad|>",
    },
    {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
]


def checkpoint(folder: Path, **tokenizer_config: Any) -> Path:
    """The tiny checkpoint with other keys in its tokenizer_config.json; None takes one out."""
    shutil.copytree(TINY, folder)
    config = json.loads((TINY / "tokenizer_config.json").read_text()) | tokenizer_config
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    return folder


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def outcome(call: Any) -> str:
    """A prompt, or that there is none."""
    try:
        return str(call())
    except Exception:
        return "refused"


@pytest.mark.engine
@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_prompt_is_what_transformers_writes_and_so_is_the_packaged_templates(
    number: int, transformers: Any, tmp_path: Path, shared: Path
) -> None:
    tiny = json.loads((TINY / "tokenizer_config.json").read_text())
    kept = {key: tiny[key] for key in ("added_tokens_decoder", "tokenizer_class")}
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "config.json").write_bytes((TINY / "config.json").read_bytes())
    (folder / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**kept, **CONFIGS[number]}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = special_tokens({**kept, **CONFIGS[number]})
    assert tokens == theirs.special_tokens_map
    genuine = {
        path.name: path.read_text() for path in (shared / "qwen" / "templates").glob("*.jinja")
    }
    for name, template in {**TEMPLATES, **genuine}.items():
        packaged = portable({"default": template}, tokens)
        assert packaged is not None
        for which, conversation in CONVERSATIONS.items():
            given = {"add_generation_prompt": True, **conversation}
            messages = given.pop("messages")
            theirs_of = partial(
                theirs.apply_chat_template, messages, chat_template=template, tokenize=False
            )
            wanted = outcome(partial(theirs_of, **given))
            own = outcome(partial(render, template, messages, **{**tokens, **given}))
            assert own == wanted, (name, which)
            assert outcome(lambda: render(packaged, messages, **given)) == wanted, (name, which)  # noqa: B023


def test_a_template_that_needs_nothing_of_its_own_is_packaged_letter_by_letter() -> None:
    tokens = {"eos_token": "<|im_end|>"}
    assert portable({"default": CHATML}, tokens) == CHATML
    assert portable({}, tokens) is None


@pytest.mark.engine
def test_templates_by_name_are_read_and_chosen_as_transformers_does(
    transformers: Any, tmp_path: Path
) -> None:
    inner = "TOOLS\n{% for m in messages %} {{ m.content }}\n  {% endfor %}{{ tools | tojson }}\n"
    listed = [
        {"name": "default", "template": CHATML + "\n"},
        {"name": "tool_use", "template": inner},
    ]
    as_list = checkpoint(tmp_path / "list", chat_template=listed)
    as_files = checkpoint(tmp_path / "files", chat_template=None)
    (as_files / "chat_template.jinja").write_text(CHATML + "\n")
    (as_files / "additional_chat_templates").mkdir()
    (as_files / "additional_chat_templates" / "tool_use.jinja").write_text(inner)
    (as_files / "additional_chat_templates" / "rag.jinja").write_text("rag")
    for folder in (as_list, as_files):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        spoken = speech.of_folder(folder)
        for tools in (None, [TOOL], []):
            messages = [{"role": "user", "content": "Hi"}]
            wanted = theirs.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True
            )
            assert spoken.template is not None
            assert (
                render(spoken.template, messages, **({} if tools is None else {"tools": tools}))
                == wanted
            )
    assert [note for note in speech.of_folder(as_files).notes if "rag" in note]


def test_templates_none_of_which_is_the_default_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", chat_template=[{"name": "chat", "template": CHATML}])
    with pytest.raises(PackError, match="none called default"):
        speech.of_folder(folder)
    for wrong in (3, [3], [{"name": "default"}], {"default": 1}):
        config = {"chat_template": wrong}
        with pytest.raises(PackError, match="not text"):
            templates_of({"tokenizer_config.json": folder / "tokenizer_config.json"}, config)


def test_a_linked_folder_of_templates_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a")
    (tmp_path / "outside").mkdir()
    (folder / "additional_chat_templates").symlink_to(tmp_path / "outside")
    with pytest.raises(PackError, match="is a link"):
        speech.of_folder(folder)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a\nb\n{% for m in %}", "line 3"),
        ("a\n{{ messages[7].content.strip() }}", "line 2"),
        ("a\n\n\n{% unknown %}", "line 4"),
        ("{# fine #}\n{{ messages.append(1) }}", "line 2"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named_with_its_line(
    template: str, line: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "a", chat_template=template)
    with pytest.raises(PackError, match=line) as caught:
        speech.of_folder(folder)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.slow
def test_a_template_that_does_not_end_with_tools_is_refused_and_one_that_takes_none_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.checkpoint.template.SECONDS", 3.0)
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    folder = checkpoint(tmp_path / "a", chat_template=f"{plain}{{% if tools %}}{loop}{{% endif %}}")
    with pytest.raises(PackError, match="did not end within 3 seconds"):
        speech.of_folder(folder)
    refusing = f"{plain}{{% if tools %}}{{{{ raise_exception('no tools') }}}}{{% endif %}}"
    monkeypatch.setattr("packager.checkpoint.template.SECONDS", 10.0)
    speech.of_folder(checkpoint(tmp_path / "b", chat_template=refusing))


def test_a_profile_stands_in_the_template_and_says_what_a_user_of_the_own_one_would(
    tmp_path: Path,
) -> None:
    folder = checkpoint(tmp_path / "a")
    profile = Profile("off", None, 'Be "brief".\n\\ 简短 {{ x }}', (TOOL,), {"temperature": 0.5})
    assert Profile.from_dict(json.loads(json.dumps(profile.as_dict()))) == profile
    spoken = speech.of_folder(folder, profile)
    assert spoken.template is not None
    own = speech.own_templates(folder)
    for name, conversation in CONVERSATIONS.items():
        given = dict(conversation)
        wanted = own.render(profile.applied(conversation))
        assert render(spoken.template, given.pop("messages"), **given) == wanted, name
    text = render(spoken.template, [{"role": "user", "content": "Hi"}], enable_thinking=True)
    assert "简短 {{ x }}" in text and '"now"' in text and "<think>\n\n</think>" in text


@pytest.mark.parametrize(
    ("template", "thinking", "words"),
    [
        (CHATML, "on", "never thinks"),
        (CHATML.replace("assistant\\n", "assistant\\n<think>\\n"), "off", "always thinks"),
    ],
)
def test_thinking_that_a_template_has_no_switch_for_is_refused(
    template: str, thinking: Any, words: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "a", chat_template=template)
    with pytest.raises(PackError, match=words) as caught:
        speech.of_folder(folder, Profile(thinking))
    assert caught.value.exit_code == ExitCode.USAGE
    speech.of_folder(folder, Profile("on" if thinking == "off" else "off"))


def test_a_base_model_takes_no_profile_of_chats(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", chat_template=None)
    assert speech.of_folder(folder).template is None
    assert speech.of_folder(folder, Profile(sampling={"temperature": 0})).template is None
    with pytest.raises(PackError, match="no chat template"):
        speech.of_folder(folder, Profile(system_prompt="Be brief."))
