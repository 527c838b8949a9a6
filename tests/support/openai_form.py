"""Conversations as OpenAI's clients send them."""

from __future__ import annotations

import json
from typing import Any


def as_a_client_sends_it(message: dict[str, Any]) -> dict[str, Any]:
    """A message in OpenAI's form, where the arguments of a call are a string of JSON."""
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"]),
            },
        }
        for call in message.get("tool_calls") or []
    ]
    return {
        **message,
        **({"tool_calls": calls, "content": message["content"] or None} if calls else {}),
    }
