"""Sounds of a request: files in base64, bounded in size and number. No address is ever asked for
one, and no file of this machine is opened."""

from __future__ import annotations

import base64
import binascii

from .parsed import Parsed
from .refused import Refused

PART = "input_audio"
"""The type of the part of a message that is a sound, by OpenAI's name."""
_FORMATS = ("wav", "mp3", "flac", "ogg", "opus")
"""What `format` may say: OpenAI's own are wav and mp3. What the file is, its content says."""


def sound_of(part: Parsed, index: int) -> bytes:
    """The file in a part of a message. Raises Refused for what is not in base64, and for a format
    that is not read."""
    given = part.get(PART)
    data = given.get("data") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(data, str):
        raise Refused(f"messages[{index}] has a sound without `data`")
    form = given.get("format")
    if form is not None and form not in _FORMATS:
        raise Refused(f"messages[{index}] has a sound in another format than {', '.join(_FORMATS)}")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"messages[{index}] has a sound that is not in base64") from None
