"""Whether an artifact still speaks its checkpoint's language: token ids, control tokens, chat
template, end of turn.

None of it depends on the weights, so it is checked at every build. A model that gets other tokens,
another template or another end of turn than it was trained with still decodes at full speed, and
answers worse or never ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint
from packager.checkpoint.template import render_apart
from packager.escapes import line
from packager.json_values import JsonObject
from packager.quality.parity_corpus import CONVERSATIONS, DECOMPOSED, TEXTS, shipped_texts
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.session import RendersChats, Session
from packager.shape.speaking import BRACKETS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STOP_TOKENS = 32
"""How far an answer is followed when its end is looked for."""

ALSO_ENDS = ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
"""Control tokens that never occur within an answer, at which an engine may stop unasked.

Source: llama.cpp, src/llama-vocab.cpp, special_eog_ids.
"""

_SHOWN = 24
_AROUND = ((" x", "y "), (" x ", " y "), ("\n", "\n"))
"""Before and behind an added token: letters, spaces, line breaks."""


@dataclass(frozen=True, slots=True)
class ParityResult:
    """What was compared, and every difference as a sentence; no findings means that the artifact is
    faithful.

    `texts` and `tokens` count what was encoded, `conversations` what was rendered (0 for a base
    model, and for a `same_template`, one that is equal letter by letter), `ends` are the ids that
    end a turn, `stopped_after` the length of an answer that was seen to end, in tokens (None where
    none was asked for or none ended). `notes` are differences that the engine itself has, whatever
    the artifact.
    """

    texts: int
    tokens: int
    control_tokens: int
    conversations: int
    ends: tuple[int, ...]
    stopped_after: int | None
    notes: tuple[str, ...]
    findings: tuple[str, ...]
    same_template: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.findings

    def as_dict(self) -> JsonObject:
        """As the manifest keeps it."""
        shown = {
            name: [line(text) for text in getattr(self, name)] for name in ("notes", "findings")
        }
        return {**asdict(self), "ends": list(self.ends), **shown}


def check(
    session: Session,
    checkpoint: Checkpoint,
    log: Path,
    *,
    stops: bool,
    profile: Profile | None = None,
) -> ParityResult:
    """Compare a loaded artifact with the checkpoint that it was made from.

    `stops` says that the weights are real, so that an answer can be expected to end. `log` takes
    what the child process prints that renders templates, should the artifact's differ from the
    checkpoint's. `profile` is what the artifact was built with.
    """
    wished = profile or Profile()
    spoken = speech.of_folder(checkpoint.folder, wished)
    reference = reference_tokenizer(checkpoint)
    texts = [*TEXTS, *shipped_texts()]
    encoded = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    added = {
        number: token.content
        for number, token in sorted(reference.get_added_tokens_decoder().items())
    }
    # An engine that writes these around a picture by itself has them under its own names.
    written = {
        number: text
        for number, text in added.items()
        if text not in BRACKETS or session.encode(BRACKETS[text]) != [number]
    }
    ends = session.ends()
    mine = session.chat_template()
    same = mine is not None and speech.same_by_letter(checkpoint.folder, mine, wished)
    findings = [
        *_tokens(session, reference, texts, encoded),
        *_control_tokens(session, reference, written),
        *([] if same else _template(mine, checkpoint, wished, log)),
        *_ends(ends, spoken.ends, reference),
    ]
    stopped = None
    if stops and spoken.template is not None and not findings:
        question = list(speech.QUESTION)
        prompt = render_apart(spoken.template, question, log, enable_thinking=False)
        stopped, wrong = _stops(session, prompt, spoken.ends, reference)
        findings += wrong
    # Equal letter by letter, it is rendered by no more than the engine's own language.
    rendered = not same or isinstance(session, RendersChats)
    if checkpoint.chat_template is None:
        rendered = same = False
    return ParityResult(
        texts=len(texts),
        tokens=sum(map(len, encoded)),
        control_tokens=len(added),
        conversations=len(CONVERSATIONS) if rendered else 0,
        same_template=same,
        ends=tuple(sorted(ends)),
        stopped_after=stopped,
        notes=(
            *_decomposed(session, reference),
            *spoken.notes,
            *_own_rendering(session, checkpoint, wished, log),
        ),
        findings=tuple(findings),
    )


def _tokens(
    session: Session, reference: Tokenizer, texts: list[str], encoded: list[list[int]]
) -> Iterator[str]:
    """The first text that becomes other ids, and the first ids that become another text."""
    for text, wanted in zip(texts, encoded, strict=True):
        got = session.encode(text)
        if got != wanted:
            index, (mine, theirs) = next(
                (index, ids)
                for index, ids in enumerate(zip_longest(got, wanted))
                if ids[0] != ids[1]
            )
            around = _around(reference, wanted, index)
            yield (
                f"Token {index} of {around} is {_name(reference, mine)} in the artifact and "
                f"{_name(reference, theirs)} in the checkpoint"
            )
            break
    for wanted in encoded:
        text = reference.decode(wanted, skip_special_tokens=False)
        spoken = session.decode(wanted)
        if spoken != text:
            index = next(
                (
                    index
                    for index, signs in enumerate(zip_longest(spoken, text))
                    if signs[0] != signs[1]
                ),
                0,
            )
            mine, theirs = (part[max(0, index - 4) : index + _SHOWN] for part in (spoken, text))
            yield (
                f"Token ids are read as {mine!r} by the artifact and as {theirs!r} by the "
                "checkpoint"
            )
            break


def _decomposed(session: Session, reference: Tokenizer) -> Iterator[str]:
    if session.encode(DECOMPOSED) != reference.encode(DECOMPOSED, add_special_tokens=False).ids:
        yield (
            "The engine does not compose combining marks as the tokenizer asks (Unicode normal "
            "form C): send composed text"
        )


def _control_tokens(session: Session, reference: Tokenizer, added: dict[int, str]) -> Iterator[str]:
    """Every added token alone, inside a text, and next to the one after it.

    Flags of a token (it takes the spaces beside it, it stands only as a word of its own) and tokens
    that overlap show in the last two alone.
    """
    for number, text in added.items():
        got = session.encode(text)
        if got != [number]:
            yield (
                f"The control token {text} is {got} in the artifact and [{number}] in the "
                "checkpoint"
            )
            return
    texts = list(added.values())
    neighbours = [first + second for first, second in pairwise([*texts, *texts[:1]])]
    inside = [f"{before}{text}{behind}" for text in texts for before, behind in _AROUND]
    for text in [*inside, *neighbours, *_overlaps(texts)]:
        got, wanted = session.encode(text), _ids(reference, text)
        if got != wanted:
            yield (
                f"{text!r} is {got} in the artifact and {wanted} in the checkpoint: added tokens "
                "are cut out of a text in another way"
            )
            return


def _overlaps(texts: list[str]) -> Iterator[str]:
    """Texts in which two added tokens share their letters: one of them is found, which one is a
    matter of rules."""
    by_start: dict[str, list[str]] = {}
    for text in texts:
        by_start.setdefault(text[:1], []).append(text)
    for first in texts:
        for cut in range(1, len(first)):
            for second in by_start.get(first[cut], ()):
                if second != first and second.startswith(first[cut:]):
                    yield f"a {first[:cut]}{second} b"


def _ids(reference: Tokenizer, text: str) -> list[int]:
    ids: list[int] = reference.encode(text, add_special_tokens=False).ids
    return ids


def _template(
    mine: str | None, checkpoint: Checkpoint, profile: Profile, log: Path
) -> Iterator[str]:
    """The artifact's template beside what transformers makes of the checkpoint's own."""
    if checkpoint.chat_template is None:
        return
    if mine is None:
        yield "The artifact has no chat template and the checkpoint has one"
        return
    rendered = speech.beside_own(checkpoint.folder, mine, profile, CONVERSATIONS, log)
    for (name, _), (first, second) in zip(CONVERSATIONS.items(), rendered, strict=True):
        if first != second:
            if first is None or second is None:
                which = "artifact" if first is None else "checkpoint"
                yield f"Only the {which}'s chat template refuses a conversation ({name})"
            else:
                index = next(
                    index
                    for index, signs in enumerate(zip_longest(first, second))
                    if signs[0] != signs[1]
                )
                shown = [repr(text[max(0, index - 8) : index + _SHOWN]) for text in (first, second)]
                yield (
                    f"The chat template writes {shown[0]} in the artifact and {shown[1]} in the "
                    f"checkpoint ({name})"
                )
            return


def _own_rendering(
    session: Session, checkpoint: Checkpoint, profile: Profile, log: Path
) -> Iterator[str]:
    """A note on the conversations that the engine's own template language writes in another way.

    It is the engine's doing and no fault of the artifact's: an app that renders with Jinja is
    right.
    """
    template = session.chat_template()
    if (
        not isinstance(session, RendersChats)
        or template is None
        or checkpoint.chat_template is None
    ):
        return
    wanted = speech.beside_own(checkpoint.folder, template, profile, CONVERSATIONS, log)
    different = []
    for (name, conversation), (_, right) in zip(CONVERSATIONS.items(), wanted, strict=True):
        try:
            text = session.rendered(conversation)
        except (RuntimeError, ValueError, TypeError):
            text = "" if right is not None else None
        if text is not None and right is not None and text != right:
            different.append(name)
    if different:
        yield (
            "The engine's own template language writes these chats otherwise than the checkpoint's "
            f"({', '.join(different)}): render chat_template.jinja with Jinja, as serve.py does"
        )


def _ends(ends: frozenset[int], wanted: Sequence[int], reference: Tokenizer) -> Iterator[str]:
    missing = [number for number in wanted if number not in ends]
    if missing:
        yield (
            f"The artifact does not stop at {_name(reference, missing[0])}, which ends a turn of "
            "the checkpoint"
        )
    expected = {*wanted, *(reference.token_to_id(text) for text in ALSO_ENDS)}
    wrong = sorted(ends - expected)
    if wrong:
        yield (
            f"The artifact stops at {_name(reference, wrong[0])}, which does not end a turn of "
            "the checkpoint"
        )


def _stops(
    session: Session, prompt: str, ends: Sequence[int], reference: Tokenizer
) -> tuple[int | None, list[str]]:
    """Follow one answer past its end, then again with the end respected.

    The second is the first up to there: up to an end of the checkpoint, or to one of the tokens
    at which an engine stops unasked.
    """
    ids = session.encode(prompt)
    whole = session.generate(ids, STOP_TOKENS, lambda token: None, stop=False)
    unasked = {reference.token_to_id(text) for text in ALSO_ENDS} & session.ends()
    expected = {*ends, *unasked}
    length = next((index for index, token in enumerate(whole) if token in expected), None)
    if length is None:
        return None, []
    answer = session.generate(ids, STOP_TOKENS, lambda token: None)
    if answer != whole[:length]:
        return None, [f"An answer whose turn ends after {length} tokens had {len(answer)} tokens"]
    return length, []


def _name(reference: Tokenizer, number: int | None) -> str:
    if number is None:
        return "missing"
    token = reference.id_to_token(number)
    return (
        f"{number} ({reference.decode([number], skip_special_tokens=False)!r})"
        if token is not None
        else f"{number} (unknown)"
    )


def _around(reference: Tokenizer, ids: list[int], index: int) -> str:
    text = reference.decode(ids[max(0, index - 4) : index + 6], skip_special_tokens=False)
    return json.dumps(text, ensure_ascii=False)
