"""The chat templates of a checkpoint by name, from the files that transformers reads them from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.checkpoint.folder import ADDITIONAL_TEMPLATES, read_json, read_text
from packager.errors import bad_input
from packager.limits import TEMPLATE_BYTES

DEFAULT, TOOLS = "default", "tool_use"
"""What transformers takes of several: the second where a conversation has tools."""


def templates_of(files: Mapping[str, Path], tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Name -> Jinja text; empty for a base model.

    Order as in transformers: chat_template.jinja with the files of additional_chat_templates,
    then chat_template.json, then tokenizer_config.json. Raises PackError (bad input) for templates
    of which none is the default, for what is not text, and for more of it than a template has.
    """
    templates = _found(files, tokenizer_config)
    for name, text in templates.items():
        if len(text) > TEMPLATE_BYTES:
            raise bad_input(
                f"The chat template {name!r} in {next(iter(files.values())).parent} has "
                f"{len(text)} characters, more than any template has.",
                "Get the file again from where it was published.",
            )
    return {name: _line_ends(text) for name, text in templates.items()}


def _line_ends(text: str) -> str:
    """With a line feed at every end of line, as Jinja reads any of them: the engines' own template
    languages do not."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _found(files: Mapping[str, Path], tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    in_files = {
        Path(name).stem: read_text(path)
        for name, path in files.items()
        if name.startswith(f"{ADDITIONAL_TEMPLATES}/")
    }
    if "chat_template.jinja" in files:
        in_files[DEFAULT] = read_text(files["chat_template.jinja"])
    if in_files:
        return _with_default(in_files, str(next(iter(files.values())).parent))
    as_json = "chat_template.json" in files
    source = read_json(files["chat_template.json"]) if as_json else tokenizer_config
    where = str(files.get("chat_template.json" if as_json else "tokenizer_config.json", ""))
    value = source.get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    return _with_default(_listed(value, where), where)


def _listed(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        by_name = dict(value)
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        by_name = {entry.get("name"): entry.get("template") for entry in value}
    else:
        by_name = {"": None}
    if not all(isinstance(part, str) for pair in by_name.items() for part in pair):
        raise bad_input(
            f"{where} has a chat_template that is not text.",
            "Get the file again from where it was published.",
        )
    return by_name


def _with_default(found: dict[str, str], where: str) -> dict[str, str]:
    if found and DEFAULT not in found:
        raise bad_input(
            f"{where} has the chat templates {', '.join(sorted(found))}, and none called default.",
            "Name the one that a conversation takes `default`.",
        )
    return found
