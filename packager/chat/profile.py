"""How a deployed model is to behave: one object that the artifact and every export obey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from packager.chat.templates import literal
from packager.json_values import JsonObject

Thinking = Literal["on", "off"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is fixed at build time; the empty profile leaves everything as the checkpoint has it.

    `thinking` switches it for good; `thinking_budget` is how many tokens of thought a server allows
    before it ends the thought. `system_prompt` and `tools` (OpenAI's form) hold where a
    conversation brings none of its own; `sampling` stands over the checkpoint's own values.
    """

    thinking: Thinking | None = None
    thinking_budget: int | None = None
    system_prompt: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is fixed."""
        return self != Profile()

    def as_dict(self) -> JsonObject:
        """As the manifest keeps it."""
        return {**asdict(self), "tools": [dict(tool) for tool in self.tools]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Profile:
        """From a manifest, or from a build's inputs; absent fields stay empty."""
        data = data or {}
        return cls(
            data.get("thinking"),
            data.get("thinking_budget"),
            data.get("system_prompt"),
            tuple(data.get("tools") or ()),
            data.get("sampling") or {},
        )

    def statements(self) -> list[str]:
        """The profile in Jinja, to stand in front of a template."""
        lines = []
        if self.thinking is not None:
            lines.append(f"{{%- set enable_thinking = {literal(self.thinking == 'on')} -%}}")
        if self.system_prompt is not None:
            turn = literal([{"role": "system", "content": self.system_prompt}])
            lines.append(
                "{%- if not messages or messages[0]['role'] != 'system' -%}"
                f"{{%- set messages = {turn} + messages -%}}{{%- endif -%}}"
            )
        if self.tools:
            tools = literal([dict(tool) for tool in self.tools])
            lines.append(f"{{%- if not tools -%}}{{%- set tools = {tools} -%}}{{%- endif -%}}")
        return lines

    def applied(self, conversation: Mapping[str, Any]) -> JsonObject:
        """A conversation as somebody who obeys the profile would hand it to the checkpoint's own
        template."""
        changed = dict(conversation)
        if self.thinking is not None:
            changed["enable_thinking"] = self.thinking == "on"
        messages = changed["messages"]
        if self.system_prompt is not None and (not messages or messages[0]["role"] != "system"):
            changed["messages"] = [{"role": "system", "content": self.system_prompt}, *messages]
        if self.tools and not changed.get("tools"):
            changed["tools"] = [dict(tool) for tool in self.tools]
        return changed
