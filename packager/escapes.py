"""The one table of escapes: a text from outside as it stands in each place that we write. What
comes in may hold anything; what goes out cannot end early, and shows itself without effect.

Every command starts with this module, so its functions import what only few of them need.

Every writer takes its escapes from here. A template of an export can print nothing else: see
packager/shipping/apps/snippets.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_LONGEST_CONSTANT = 65_535
"""Bytes of a string constant. Source: the JVM specification, 4.4.7."""
_MARKUP = frozenset("\\`*[]|$#!~&")
"""Not the underscore and the hyphen, which names have, and which within a word are no markup."""


class Safe(str):
    """A text that went through one of the functions below."""


def plain(text: str) -> Safe:
    """For comments and prose of any language: letters, digits, spaces and `.,:;+()@/-_`; anything
    else becomes `_`.

    No quote, backslash, star, line break or control character passes, so it ends no comment and
    starts no markup.
    """
    import unicodedata

    known = unicodedata.normalize("NFC", text)
    return Safe(
        "".join(char if char.isalnum() or char in " .,:;+()@/-_" else "_" for char in known) or "_"
    )


def terminal(text: str) -> Safe:
    """A text on a terminal: whatever would do more than show itself (escapes, marks that turn the
    direction, bytes that are no UTF-8) as an escape of Python; line breaks and tabs stay."""
    if text.isprintable():
        return Safe(text)
    return Safe(
        "".join(
            char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
            for char in text
        )
    )


def line(text: str) -> str:
    """As `terminal`, on one line and in one cell of a table, or as the text of a record: line
    breaks and tabs as escapes as well."""
    # Nearly every cell of a table is.
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def bare(text: str) -> str:
    """A sentence of somebody else's without what would do more than show itself."""
    return "".join(char for char in text if char.isprintable())


def words_of(error: Exception) -> str:
    """What a library says went wrong, without its full stop."""
    return bare(str(error) or type(error).__name__).rstrip(".")


def html(text: str) -> Safe:
    """Text or the value of an attribute in HTML and SVG; marks that turn the direction as
    escapes, for HTML has no others that keep them from it."""
    from html import escape

    return Safe(escape(terminal(text).replace("\n", " ").replace("\t", " ")))


def csv_cell(text: str) -> Safe:
    """A cell of a table for spreadsheets, on one line: what one would take for a formula begins
    with an apostrophe. The commas and quotes are those of the writer of the standard library."""
    shown = line(text)
    return Safe(f"'{shown}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else shown)


def markdown(text: str) -> Safe:
    """A piece of a line of Markdown, in a table as well: nothing in it is markup, HTML or the end
    of a cell."""
    shown = terminal(text).replace("\n", " ").replace("\t", " ")
    return Safe(
        "".join(f"\\{char}" if char in _MARKUP else char for char in shown)
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )


def code(text: str) -> Safe:
    """A piece of Markdown in a fixed-width face, with its backquotes; it is one piece in a table,
    too."""
    shown = (
        terminal(text).replace("\n", " ").replace("\t", " ").replace("`", "'").replace("|", "\\|")
    )
    return Safe(f"`{shown}`")


def yaml(text: str) -> Safe:
    """A value of YAML, in ASCII. Not the string of JSON, which writes what lies outside 16 bits as
    two characters."""
    points = (ord(char) if not "\ud800" <= char <= "\udfff" else 0xFFFD for char in text)
    return _quoted(
        points, lambda point: f"\\u{point:04x}" if point < 1 << 16 else f"\\U{point:08x}", '"\\'
    )


def toml(text: str) -> Safe:
    """A string of TOML: what can be shown stays as it is. Half a character, for which TOML has no
    escape, becomes U+FFFD."""
    return Safe(f'"{"".join(map(_toml, text))}"')


def _toml(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if short:
        return short
    point = ord(char) if not "\ud800" <= char <= "\udfff" else 0xFFFD
    return f"\\u{point:04x}" if point < 1 << 16 else f"\\U{point:08x}"


def jinja(text: str) -> Safe:
    """A string in a chat template, for a model and not for a terminal: it is told every character
    as it is."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return Safe('"' + inner.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"')


def slug(text: str) -> Safe:
    """A name that every store and shell takes: small letters of ASCII, digits and single hyphens;
    starts with a letter, 1 to 60 long."""
    import unicodedata

    folded = unicodedata.normalize("NFKD", text).casefold()
    plain_name = re.sub(r"[^a-z0-9]+", "-", folded).strip("-")
    return Safe(
        (plain_name if plain_name[:1].isalpha() else f"model-{plain_name}")
        .strip("-")[:60]
        .strip("-")
    )


def c(text: str) -> Safe:
    """A string of C in UTF-8: what is no plain ASCII as three octal digits, which cannot swallow
    what follows."""
    # The question mark as well: two of them and a slash are a backslash to a compiler that knows
    # trigraphs.
    return _quoted(text.encode(errors="surrogatepass"), lambda byte: f"\\{byte:03o}", '"\\?')


def kotlin(text: str) -> Safe:
    """A string of Kotlin; the dollar sign, which would start a template, is escaped as well.

    Raises ValueError for more than a constant of the JVM holds.
    """
    if len(text.encode(errors="surrogatepass")) > _LONGEST_CONSTANT:
        raise ValueError(
            f"a text has more than the {_LONGEST_CONSTANT} bytes of a constant of Kotlin"
        )
    return _quoted(_utf16(text), lambda unit: f"\\u{unit:04x}", '"\\$')


def swift(text: str) -> Safe:
    """A string of Swift."""
    return _quoted(
        (ord(char) for char in text),
        lambda point: f"\\u{{{point if not 0xD800 <= point < 0xE000 else 0xFFFD:x}}}",
        '"\\',
    )


def json_text(text: str) -> Safe:
    """A string of JSON, in ASCII: also an argument in the exec form of a Dockerfile."""
    import json

    return Safe(json.dumps(text))


def python(text: str) -> Safe:
    """A string of Python, in ASCII. Not that of JSON, which writes what lies outside 16 bits as two
    characters."""
    return Safe(ascii(text))


def sh(text: str) -> Safe:
    """A word of the POSIX shell."""
    import shlex

    return Safe(shlex.quote(text.replace("\0", "")))


def command(words: Iterable[str]) -> Safe:
    """A command line of the POSIX shell."""
    return Safe(" ".join(map(sh, words)))


_UNPRINTABLE = re.compile(r"[^\n -~]")


def json_document(text: str) -> Safe:
    """A whole text of JSON, which leaves what is no control character of ASCII as it is; here it
    becomes the escape that JSON has for it."""
    # Of ASCII, JSON itself leaves this one alone as it is.
    if text.isascii() and "\x7f" not in text:
        return Safe(text)

    def shown(character: re.Match[str]) -> str:
        return character[0] if character[0].isprintable() else json_text(character[0])[1:-1]

    return Safe(_UNPRINTABLE.sub(shown, text))


def ini(text: str) -> Safe:
    """The value of a key file as GLib reads it, which RAUC uses: `\\n`, `\\t`, `\\\\`, and `\\s`
    for a space in front."""
    escaped = (
        text.replace("\\", "\\\\")
        .replace("\n", "\\n")
        .replace("\t", "\\t")
        .replace("\r", "\\r")
        .replace("\0", "")
    )
    escaped = "".join(char for char in escaped if char.isprintable())
    return Safe("\\s" + escaped[1:] if escaped.startswith(" ") else escaped)


def hexadecimal(text: str) -> Safe:
    """A digest. Raises ValueError for what is none."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is not a sha256")
    return Safe(text)


def c_bytes(text: str) -> Safe:
    """A digest as the 32 bytes of an array of C."""
    return Safe(", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(hexadecimal(text))))


FILTERS: dict[str, Callable[[str], Safe]] = {
    "terminal": terminal,
    "html": html,
    "csv": csv_cell,
    "toml": toml,
    "jinja": jinja,
    "markdown": markdown,
    "code": code,
    "yaml": yaml,
    "plain": plain,
    "slug": slug,
    "c": c,
    "kotlin": kotlin,
    "swift": swift,
    "json": json_text,
    "python": python,
    "sh": sh,
    "ini": ini,
    "hex": hexadecimal,
    "c_bytes": c_bytes,
}


def _quoted(units: Iterable[int], escaped: Callable[[int], str], special: str) -> Safe:
    return Safe(
        '"'
        + "".join(
            chr(unit) if 32 <= unit < 127 and chr(unit) not in special else escaped(unit)
            for unit in units
        )
        + '"'
    )


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be", errors="surrogatepass")
    return [data[at] << 8 | data[at + 1] for at in range(0, len(data), 2)]
