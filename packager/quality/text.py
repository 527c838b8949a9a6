"""The text on which a quantized model is compared: parts of different kinds, cut into pieces of
token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager.errors import bad_input, from_foreign, usage
from packager.escapes import line

FOLDER = Path(__file__).parent / "text"
"""The parts that ship with qwen-pack, one file each, named after their kind."""

_CALLS = Path(__file__).parent / "tool_calls.txt"

WINDOW = 512
"""Tokens of one piece at most: longer ones cost attention and tell nothing more about the
weights."""

LONG = "long"
"""The part that is read because windows or positions change further out than an ordinary piece
reaches."""

BEYOND = 256
"""Tokens of a piece behind the point where windows or positions change."""

FURTHEST = 4096
"""Tokens beyond which no piece goes: attention over more takes longer than the rest of a build."""

_MOST_BYTES = 16 << 20
READ_PER_TOKEN = 16
"""Characters that are tokenized for every token wanted: more than any token of ordinary text has on
average."""


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """What is read: `name` as the manifest shows it, and its parts."""

    name: str
    parts: tuple[Part, ...]

    @property
    def sha256(self) -> str:
        """Digest over names and texts of all parts."""
        digest = hashlib.sha256()
        for part in self.parts:
            for piece in (part.name, part.text):
                data = piece.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring token ids that are read from a cold cache, and the part they come from."""

    part: str
    ids: tuple[int, ...]


def shipped() -> Text:
    """The text that ships with qwen-pack."""
    return Text(
        "qwen-pack",
        tuple(Part(path.stem, path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.txt"))),
    )


def continued() -> dict[str, str]:
    """Texts by kind whose continuation shows how much of what is drafted is accepted: those of the
    gate, and a chat with tool calls, which the gate's figures do not count."""
    parts = {part.name: part.text for part in shipped().parts}
    return {**parts, _CALLS.stem: _CALLS.read_text("utf-8")}


def of_file(path: Path) -> Text:
    """The user's own text, as one part. Raises PackError: exit code 2 for no file, 6 for one that
    is not text or too large."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise usage(f"{path} is not a file.", "Name a text file with --quality-text.")
        if size > _MOST_BYTES:
            raise bad_input(
                f"{path} has {size} bytes; a quality text has at most {_MOST_BYTES}.",
                "Name a shorter text.",
            )
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise usage(f"There is no file {path}.", "Name a text file with --quality-text.") from None
    except UnicodeDecodeError:
        raise bad_input(f"{path} is not UTF-8 text.", "Save it as UTF-8 and try again.") from None
    except OSError as error:
        raise from_foreign(error) or error from None
    if not text.strip():
        raise bad_input(f"{path} holds no text.", "Name a text of a few hundred words at least.")
    return Text(
        line(path.name),
        (Part("text", text),),
    )


def pieces(
    text: Text, encode: Callable[[str], Sequence[int]], tokens: int, window: int = WINDOW
) -> list[Piece]:
    """The first tokens of every part, an equal share each and about `tokens` together, in pieces of
    at most `window`.

    A piece of one token predicts nothing and is left out. Raises PackError (bad input) when nothing
    is left.
    """
    share = max(2, tokens // len(text.parts))
    cut = []
    for part in text.parts:
        ids = tuple(encode(part.text[: READ_PER_TOKEN * share]))[:share]
        cut += [
            Piece(part.name, ids[start : start + window]) for start in range(0, len(ids), window)
        ]
    kept = [piece for piece in cut if len(piece.ids) > 1]
    if not kept:
        raise bad_input(
            f"The text {text.name!r} is shorter than two tokens.",
            "Name a text of a few hundred words at least.",
        )
    return kept


def long_piece(text: Text, encode: Callable[[str], Sequence[int]], tokens: int) -> list[Piece]:
    """One piece of so many tokens out of all parts together; none where the text has fewer."""
    whole = "\n".join(part.text for part in text.parts)
    ids = tuple(encode(whole[: READ_PER_TOKEN * tokens]))[:tokens]
    return [Piece(LONG, ids)] if len(ids) == tokens else []
