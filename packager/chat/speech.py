"""What a checkpoint in a folder says of chats: its template for every engine, and its ends of turn.

The template is code from outside, so all of it is rendered in a child process that has bounded
time and memory, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from packager.chat import ends as ends_of_turn
from packager.chat.profile import Profile
from packager.chat.special_tokens import special_tokens
from packager.chat.templates import chosen, portable
from packager.checkpoint import first_generation, tiktoken
from packager.checkpoint.chat_templates import DEFAULT, TOOLS, templates_of
from packager.checkpoint.folder import checkpoint_files, is_weights, read_json
from packager.checkpoint.template import apart, limit_template_memory, pairs_of_texts, render, split
from packager.errors import PackError, bad_input, usage
from packager.json_values import (
    JsonObject,
    at,
    at_or_none,
    object_or_empty,
    objects_at,
    texts_at,
    wholes_at,
)
from packager.runtime import Report
from packager.scratch import temporary_folder

QUESTION: tuple[JsonObject, ...] = ({"role": "user", "content": "What is 2 + 3?"},)

_TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "", "parameters": {"type": "object"}},
}
_ANSWER = "the answer of 7"


@dataclass(frozen=True, slots=True)
class Speech:
    """What an artifact must be given to speak as its checkpoint does.

    `template` is one Jinja text for every engine, the profile in it; None for a base model. `ends`
    are the ids that end a turn, `end_texts` the same as text. `notes` are what a user should know.
    `prefix_stable` says whether a chat's next prompt begins with the one before it, so that a cache
    of the prefix holds over turns; None where there is no template, or it takes no such chat.
    `template_end` is the token that the template puts behind an answer, None where it puts none.
    """

    template: str | None
    ends: tuple[int, ...]
    end_texts: tuple[str, ...]
    notes: tuple[str, ...]
    prefix_stable: bool | None = None
    template_end: str | None = None


def of_folder(folder: Path, profile: Profile | None = None) -> Speech:
    """Read and try the templates of a checkpoint.

    Raises PackError: exit code 6 naming the template's line where it cannot be rendered, or where
    no file says what ends a turn; 2 where the model cannot do what the profile asks for.
    """
    stamps = tuple(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in checkpoint_files(folder).items()
        if not is_weights(name)
    )
    return _cached(str(folder.absolute()), stamps, _Hashed(profile or Profile()))


class _Hashed:
    """A profile as a key: it holds JSON, which has no hash of its own."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._key = repr(profile.as_dict())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other._key == self._key


@lru_cache(maxsize=64)
def _cached(folder: str, stamps: tuple[Any, ...], key: _Hashed) -> Speech:
    arguments: JsonObject = {"folder": folder, "profile": key.profile.as_dict()}
    with temporary_folder() as scratch:
        speech = apart("packager.chat.speech:read_job", arguments, scratch / "log")
    return Speech(
        at_or_none(speech, "template", str),
        tuple(wholes_at(speech, "ends")),
        tuple(texts_at(speech, "end_texts")),
        tuple(texts_at(speech, "notes")),
        at_or_none(speech, "prefix_stable", bool),
        at_or_none(speech, "template_end", str),
    )


def read_job(report: Report, *, folder: str, profile: JsonObject) -> JsonObject:
    """The job behind `of_folder`: a Speech as JSON."""
    own = own_templates(Path(folder))
    files = checkpoint_files(Path(folder))
    ids = token_ids(files, own.tokenizer_config)
    limit_template_memory()
    wished = Profile.from_dict(profile)
    template = portable(own.templates, own.tokens, wished.statements())
    if template is not None:
        # As it stands in the file first: an error's line is one of that file then.
        own.render({"messages": list(QUESTION)})
        refuse_impossible(own, wished)
        render(template, list(QUESTION))
        # Whether it ends with tools too, which it may refuse.
        with suppress(PackError):
            own.render({"messages": list(QUESTION), "tools": [_TOOL]})
    elif wished.thinking or wished.system_prompt is not None or wished.tools:
        raise usage(
            "The checkpoint has no chat template, so that no profile can be applied to its chats.",
            "Leave --thinking, --system-prompt and --tools out, or take a chat model.",
        )
    end = None if template is None else _end_of(template, ids)
    config = read_json(files["config.json"]) if "config.json" in files else {}
    ends = ends_of_turn.ends_of(config, own.generation_config, own.tokenizer_config, ids, end)
    texts = {number: text for text, number in ids.items()}
    left_out = sorted(own.templates.keys() - {DEFAULT, TOOLS})
    notes = list(ends.notes)
    if left_out:
        notes.append(
            f"The chat templates {', '.join(left_out)} are left out: engines never ask for them"
        )
    return asdict(
        Speech(
            template,
            ends.ids,
            tuple(texts.get(number, "") for number in ends.ids),
            tuple(notes),
            None if template is None else _prefix_stable(template),
            end,
        )
    )


def same_by_letter(folder: Path, template: str, profile: Profile) -> bool:
    """Whether a template is the checkpoint's only one as it stands there, and nothing else
    counts."""
    own = own_templates(folder)
    as_packaged = portable(own.templates, own.tokens, profile.statements())
    return template == as_packaged == own.templates.get(DEFAULT)


def beside_own(
    folder: Path,
    template: str,
    profile: Profile,
    conversations: Mapping[str, Mapping[str, Any]],
    log: Path,
) -> list[tuple[str | None, str | None]]:
    """What `template` makes of each conversation, and what transformers would under the profile.

    None where a template refuses the conversation. One child process renders them all.
    """
    arguments: JsonObject = {
        "folder": str(folder.absolute()),
        "template": template,
        "profile": profile.as_dict(),
        "conversations": list(conversations.values()),
    }
    return pairs_of_texts(apart("packager.chat.speech:beside_own_job", arguments, log))


def beside_own_job(
    report: Report,
    *,
    folder: str,
    template: str,
    profile: JsonObject,
    conversations: list[JsonObject],
) -> JsonObject:
    """The job behind `beside_own`."""
    own, wished = own_templates(Path(folder)), Profile.from_dict(profile)
    limit_template_memory()

    def mine(conversation: JsonObject) -> str | None:
        messages, variables = split(conversation)
        with suppress(PackError):
            return render(template, messages, **variables)
        return None

    def theirs(conversation: JsonObject) -> str | None:
        with suppress(PackError):
            return own.render(wished.applied(conversation))
        return None

    return {"texts": [[mine(entry), theirs(entry)] for entry in conversations]}


@dataclass(frozen=True, slots=True)
class Own:
    """A checkpoint's own templates by name, with what transformers gives them."""

    templates: dict[str, str]
    tokens: dict[str, str]
    tokenizer_config: Mapping[str, Any]
    generation_config: Mapping[str, Any]

    def render(self, conversation: Mapping[str, Any]) -> str:
        """The prompt as transformers' apply_chat_template writes it. Raises PackError (bad
        input)."""
        template = chosen(self.templates, conversation.get("tools"))
        if template is None:
            raise bad_input("The checkpoint has no chat template.", "Take a chat model.")
        messages, variables = split(conversation)
        return render(template, messages, **{**self.tokens, **variables})


def own_templates(folder: Path) -> Own:
    """What a checkpoint's files say of templates, nothing rendered. Raises PackError (bad
    input)."""
    files = checkpoint_files(folder)
    tokenizer_config, generation, config, special = (
        read_json(files[name]) if name in files else {}
        for name in (
            "tokenizer_config.json",
            "generation_config.json",
            "config.json",
            "special_tokens_map.json",
        )
    )
    templates = templates_of(files, tokenizer_config)
    if not templates and first_generation.text_only(config):
        text = first_generation.chat_template(generation)
        templates = {} if text is None else {DEFAULT: text}
    return Own(templates, special_tokens(tokenizer_config, special), tokenizer_config, generation)


def token_ids(files: Mapping[str, Path], tokenizer_config: Mapping[str, Any]) -> dict[str, int]:
    """Text -> id of the added tokens, whichever file lists them."""
    ids: dict[str, int] = {}
    if "tokenizer.json" in files:
        definition = read_json(files["tokenizer.json"])
        vocab = object_or_empty(object_or_empty(definition, "model"), "vocab")
        # A token that ends a turn may stand among the ordinary ones.
        ids |= {
            text: at(vocab, text, int)
            for text in special_tokens(tokenizer_config).values()
            if text in vocab
        }
        listed = objects_at(definition, "added_tokens")
        ids |= {at(entry, "content", str): at(entry, "id", int) for entry in listed}
    elif tiktoken.FILE in files:
        from packager.checkpoint.control_tokens import QWEN

        words = len(tiktoken.read_ranks(files[tiktoken.FILE]))
        ids |= {token.text: words + index for index, token in enumerate(QWEN)}
    if "added_tokens.json" in files:
        added = read_json(files["added_tokens.json"])
        ids = {**{text: at(added, text, int) for text in added}, **ids}
    more = tokenizer_config.get("added_tokens_decoder") or {}
    return {**{entry["content"]: int(number) for number, entry in more.items()}, **ids}


def refuse_impossible(own: Own, profile: Profile) -> None:
    """Raise PackError (usage) where the template has no switch for what the profile wants of
    thinking."""
    if profile.thinking is None:
        return
    question: JsonObject = {"messages": list(QUESTION)}
    on, off = (own.render({**question, "enable_thinking": value}) for value in (True, False))
    if on != off:
        return
    always = on.rstrip().endswith("<think>")
    if always == (profile.thinking == "on"):
        return
    does = "always thinks" if always else "never thinks"
    raise usage(
        f"This model {does}: its chat template has no switch for it.",
        f"Leave --thinking out, or take a model that can think {profile.thinking}.",
    )


def _prefix_stable(template: str) -> bool | None:
    turns: list[JsonObject] = [*QUESTION, {"role": "assistant", "content": _ANSWER}, *QUESTION]
    try:
        first, later = (render(template, turns[:count]) for count in (1, 3))
    except PackError:
        return None
    return later.startswith(first)


def _end_of(template: str, ids: Mapping[str, int]) -> str | None:
    """The token that a template puts behind an answer; None where it refuses one, or puts none."""
    turns: list[JsonObject] = [*QUESTION, {"role": "assistant", "content": _ANSWER}]
    try:
        text = render(template, turns, add_generation_prompt=False)
    except PackError:
        return None
    _, answer, behind = text.rpartition(_ANSWER)
    ending = behind.lstrip()
    tokens = [token for token in ids if ending.startswith(token)]
    return max(tokens, key=len) if answer and tokens else None
