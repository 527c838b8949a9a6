"""Digests of values, as keys and seals."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_of(value: Any) -> str:
    """sha256 of a value as canonical JSON, in hexadecimal."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def key_of(inputs: Any) -> str:
    """The key of a stage: sha256 of its inputs as canonical JSON, shortened to 24 hexadecimal
    digits."""
    return digest_of(inputs)[:24]
