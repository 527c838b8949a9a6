"""Forms that bring files (multipart/form-data, RFC 7578), as OpenAI's clients send a sound.

Python's own reader, of mail, makes a text of all of it and a list of its lines: many times the
memory where a file is one line break after another. Here each part is found where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message

from .refused import Refused

MULTIPART = "multipart/form-data"
_MOST_PARTS = 64
_HEAD_BYTES = 4096
"""Headers of a part, and that of the whole: clients write 100 to 200."""
_FIELD_BYTES = 1 << 16
"""A field that is no file."""
_BOUNDARY_BYTES = 70
"""RFC 2046, 5.1.1."""
_PLAIN = ("", "binary", "8bit", "7bit")


@dataclass
class Form:
    """Texts and files by the names of their fields, in their order."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """The one text of a field; None where there is none. Raises Refused for several."""
        texts = self.fields.get(name, [])
        if len(texts) > 1:
            raise Refused(f"the form has `{name}` more than once")
        return texts[0] if texts else None


def is_form(content_type: str) -> bool:
    """Whether a request's Content-Type says that it is one."""
    return content_type.partition(";")[0].strip().lower() == MULTIPART


def read(content_type: str, body: bytes) -> Form:
    """The form in a body. Raises Refused with a sentence for what is none, or has an end missing,
    more parts or longer fields than any request needs."""
    line = b"--" + _boundary(content_type)
    # Something may stand before the first boundary, which nobody reads.
    before = -2 if body.startswith(line) else body.find(b"\r\n" + line)
    if before == -1:
        raise Refused("the form has no boundary like the one that its header names")
    form, place = Form(), before + 2 + len(line)
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", place):
            return form
        if not body.startswith(b"\r\n", place):
            raise Refused("the form has a boundary that does not stand alone in its line")
        place += 2
        end = body.find(b"\r\n" + line, place)
        if end < 0:
            raise Refused("the form is cut off: its last boundary is missing")
        _take(body, place, end, form)
        place = end + 2 + len(line)
    raise Refused(f"the form has more than {_MOST_PARTS} fields")


def _boundary(content_type: str) -> bytes:
    head = _message("Content-Type", content_type)
    boundary = head.get_param("boundary") if is_form(content_type) else None
    good = isinstance(boundary, str) and boundary.isascii() and boundary.isprintable()
    if not good or not 0 < len(str(boundary)) <= _BOUNDARY_BYTES:
        raise Refused(f"the request is not a form: send it as {MULTIPART} with a boundary")
    return str(boundary).encode()


def _take(body: bytes, start: int, end: int, form: Form) -> None:
    """One part, from its headers on."""
    split = body.find(b"\r\n\r\n", start, min(end, start + _HEAD_BYTES))
    if split < 0:
        raise Refused("the form has a field whose headers do not end")
    heads: dict[str, str] = {}
    for row in body[start:split].decode("utf-8", "replace").split("\r\n"):
        head, _, value = row.partition(":")
        heads[head.strip().lower()] = value.strip()
    # Python's own reader takes it apart: quotes, and what stands in them.
    shown = _message("Content-Disposition", heads.get("content-disposition", ""))
    kind = shown.get_content_disposition()
    given = shown.get_param("name", header="content-disposition")
    name = given if isinstance(given, str) else ""
    if kind != "form-data" or not name:
        raise Refused("the form has a field without a name")
    if heads.get("content-transfer-encoding", "").lower() not in _PLAIN:
        raise Refused(f"the form has `{name[:80]}` in an encoding: send it as it is")
    data = body[split + 4 : end]
    if shown.get_param("filename", header="content-disposition") is not None:
        form.files.setdefault(name, []).append(data)
        return
    if len(data) > _FIELD_BYTES:
        raise Refused(f"the form has more than {_FIELD_BYTES} bytes in `{name[:80]}`")
    try:
        form.fields.setdefault(name, []).append(data.decode())
    except UnicodeDecodeError:
        raise Refused(f"the form has `{name[:80]}` that is not UTF-8") from None


def _message(name: str, value: str) -> Message:
    message = Message()
    # A line break in it would begin another header; a long one takes its reader long.
    message[name] = " ".join(value[:_HEAD_BYTES].split())
    return message
