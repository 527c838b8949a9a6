"""The chat template of a checkpoint, rendered in Jinja's immutable sandbox: it is code from
outside."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from packager.errors import PackError, bad_input
from packager.json_values import JsonObject, JsonValue, objects_at
from packager.limits import TEMPLATE_BYTES
from packager.process import limit_memory, value_within
from packager.runtime import Report

if TYPE_CHECKING:
    from jinja2 import Template

SECONDS = 10.0
"""A template of Qwen's renders in milliseconds: what takes longer does not mean to end."""
_MEMORY_BYTES = 1 << 30
_MOST_CHARACTERS = 1 << 24

_ITS_OWN = "Take the template from the model's own repository."


def render(
    template: str,
    messages: Sequence[JsonObject],
    **variables: JsonValue,
) -> str:
    """The prompt text, as transformers' apply_chat_template writes it for this template.

    `variables` go to the template as they are (tools, enable_thinking, the special tokens, ...);
    `tools` and `documents` are None where they are not given, and `add_generation_prompt` is true,
    as in transformers.
    Raises PackError when the template is not valid, reaches for what the sandbox forbids, or
    refuses the messages. The sandbox bounds neither time nor memory: a template that nobody has
    looked at goes through `render_apart`.
    """
    # Jinja costs 30 ms to import: only a rendered prompt pays for it.
    from jinja2 import TemplateError

    given = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
    try:
        text = _compiled(template).render(messages=messages, **given)
        # Half a surrogate pair is no text: no tokenizer takes it.
        text.encode("utf-8")
    except MemoryError:
        raise bad_input(
            "The chat template cannot be rendered: it takes more memory than any prompt.", _ITS_OWN
        ) from None
    except (
        TemplateError,
        SyntaxError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise bad_input(
            f"The chat template cannot be rendered{_line(error)}: {str(error).rstrip('.')}.",
            _ITS_OWN,
        ) from error
    if len(text) > _MOST_CHARACTERS:
        raise bad_input(
            f"The chat template cannot be rendered: it makes {len(text)} characters of one prompt.",
            _ITS_OWN,
        )
    return text


def _line(error: BaseException) -> str:
    """Where in the template it happened, as `, line 3`; empty where Jinja does not say."""
    # The innermost one, by whatever the template called: Jinja gives its frames the template's
    # lines.
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in ("<template>", "<unknown>")
    ]
    number = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    return f", line {number}" if isinstance(number, int) else ""


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    """Compiling takes a hundred times as long as rendering, and one template renders many
    prompts."""
    from packager.checkpoint.sandbox import Sandbox

    return Sandbox().from_string(template)


def render_apart(
    template: str, messages: Sequence[JsonObject], log: Path, **variables: JsonValue
) -> str:
    """`render` in a child process that has bounded memory and is killed after SECONDS."""
    return str(
        apart(
            "packager.checkpoint.template:render_job",
            {"template": template, "messages": messages, "variables": variables},
            log,
        )["text"]
    )


def render_both_apart(
    first: str, second: str, conversations: Mapping[str, JsonObject], log: Path
) -> list[tuple[str | None, str | None]]:
    """What two templates make of each conversation, in one child process; None where a template
    refuses it."""
    return pairs_of_texts(
        apart(
            "packager.checkpoint.template:render_both_job",
            {"templates": [first, second], "conversations": list(conversations.values())},
            log,
        )
    )


def pairs_of_texts(value: JsonObject) -> list[tuple[str | None, str | None]]:
    """What a job that renders every conversation twice gives back in `texts`."""
    return msgspec.convert(value["texts"], list[tuple[str | None, str | None]])


def apart(job: str, arguments: JsonObject, log: Path) -> JsonObject:
    """The value of a job that renders templates, in a child process that is killed after
    SECONDS."""
    value = value_within(job, arguments, log, SECONDS)
    if value is None:
        raise bad_input(
            f"The chat template cannot be rendered: it did not end within {SECONDS:.0f} seconds.",
            _ITS_OWN,
        )
    return value


def render_both_job(
    report: Report, *, templates: list[str], conversations: list[JsonObject]
) -> JsonObject:
    """The job behind `render_both_apart`; returns the texts."""

    def text(template: str, conversation: JsonObject) -> str | None:
        try:
            messages, variables = split(conversation)
            return render_bounded(template, messages, **variables)
        except PackError:
            return None

    return {
        "texts": [
            [text(template, conversation) for template in templates]
            for conversation in conversations
        ]
    }


def split(conversation: JsonObject) -> tuple[list[JsonObject], JsonObject]:
    """The messages of a conversation, and what else the template is given."""
    variables = {key: value for key, value in conversation.items() if key != "messages"}
    return objects_at(conversation, "messages"), variables


def render_job(
    report: Report, *, template: str, messages: Sequence[JsonObject], variables: JsonObject
) -> JsonObject:
    """The job behind `render_apart`; returns the text."""
    return {"text": render_bounded(template, messages, **variables)}


def render_bounded(template: str, messages: Sequence[JsonObject], **variables: JsonValue) -> str:
    """`render` in a process that is there for nothing else: its memory is bounded from now on."""
    limit_template_memory()
    return render(template, messages, **variables)


def limit_template_memory() -> None:
    """See packager.process.limit_memory: a template may ask for any amount."""
    limit_memory(_MEMORY_BYTES)


def read(path: Path) -> str:
    """The text of a template's file. Raises PackError (bad input) where it is not text, or more of
    it than a template has."""
    with path.open("rb") as file:
        data = file.read(TEMPLATE_BYTES + 1)
    if len(data) > TEMPLATE_BYTES:
        raise bad_input(
            f"{path} has more than {TEMPLATE_BYTES} bytes, which no chat template has.", _ITS_OWN
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise bad_input(f"{path} is not text: {error}.", _ITS_OWN) from error
