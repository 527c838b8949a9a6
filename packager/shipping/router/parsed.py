"""JSON as it was parsed."""

from __future__ import annotations

from typing import Any

Parsed = dict[str, Any]
"""An object from outside: whoever uses a field looks at it first."""
