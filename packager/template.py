"""The chat template of a checkpoint, rendered in Jinja's immutable sandbox: it is code from outside."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from packager.errors import bad_input


def render(template: str, messages: list[dict[str, Any]], *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """The prompt text. `variables` go to the template as they are (tools, enable_thinking, ...).

    Raises PackError when the template is not valid, reaches for what the sandbox forbids, or refuses the messages.
    """
    # Jinja costs 30 ms to import: only a rendered prompt pays for it.
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)
    except (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise bad_input(f"The chat template cannot be rendered: {error}.", "Take the template from the model's own repository.") from error


def digest(template: str) -> str:
    """sha256 of the template's text, as the manifest keeps it."""
    return hashlib.sha256(template.encode()).hexdigest()
