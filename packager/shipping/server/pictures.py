"""Pictures of a request: files in data: URLs, bounded in size and number. No address is ever asked
for one, and no file of this machine is opened."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from .refused import Refused

# Any: the client's JSON.

PARTS = ("image_url", "input_image")
"""The types of the parts of a message that are pictures, by OpenAI's names."""
_MOST = 64
_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


# Any: an object from outside, see parsed.py.
def picture_of(part: dict[str, Any], index: int, before: int) -> bytes:
    """The file in a part of a message, after `before` other ones. Raises Refused for an address
    that is no data: URL, and for what is not in base64."""
    if before >= _MOST:
        raise Refused(f"the request has more than {_MOST} pictures")
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise Refused(f"messages[{index}] has a picture without `image_url`")
    head = _DATA.match(url)
    if head is None:
        raise Refused(
            f"messages[{index}] names a picture at another place, which is not fetched: send the "
            "file itself, as data:image/png;base64,..."
        )
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"messages[{index}] has a picture that is not in base64") from None
