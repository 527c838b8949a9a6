"""Whether an artifact still speaks its checkpoint's language: token ids, control tokens, chat
template, end of turn.

None of it depends on the weights, so it is checked at every build. A model that gets other tokens,
another template or another end of turn than it was trained with still decodes at full speed, and
answers worse or never ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.checkpoint import Checkpoint
from packager.checkpoint.template import render_apart, render_both_apart
from packager.errors import PackError, bad_input
from packager.quality.parity_corpus import CONVERSATIONS, DECOMPOSED, TEXTS, shipped_texts
from packager.runtime import Session

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STOP_TOKENS = 32
"""How far an answer is followed when its end is looked for."""

ALSO_ENDS = ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
"""Control tokens that never occur within an answer, at which an engine may stop unasked.

Source: llama.cpp, src/llama-vocab.cpp, special_eog_ids.
"""

_QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class ParityResult:
    """What was compared, and every difference as a sentence; no findings means that the artifact is
    faithful.

    `texts` and `tokens` count what was encoded, `conversations` what was rendered (0 for a base
    model), `ends` are the ids that end a turn, `stopped_after` the length of an answer that was
    seen to end, in tokens (None where none was asked for or none ended). `notes` are differences
    that the engine itself has, whatever the artifact.
    """

    texts: int
    tokens: int
    control_tokens: int
    conversations: int
    ends: tuple[int, ...]
    stopped_after: int | None
    notes: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        shown = {
            name: [_printable(text) for text in getattr(self, name)]
            for name in ("notes", "findings")
        }
        return {**asdict(self), "ends": list(self.ends), **shown}


def check(session: Session, checkpoint: Checkpoint, log: Path, *, stops: bool) -> ParityResult:
    """Compare a loaded artifact with the checkpoint that it was made from.

    `stops` says that the weights are real, so that an answer can be expected to end. `log` takes
    what the child process prints that renders templates, should the artifact's differ from the
    checkpoint's.
    """
    reference = reference_tokenizer(checkpoint)
    texts = [*TEXTS, *shipped_texts()]
    encoded = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    added = {
        number: token.content
        for number, token in sorted(reference.get_added_tokens_decoder().items())
    }
    ends = session.ends()
    findings = [
        *_tokens(session, reference, texts, encoded),
        *_control_tokens(session, added),
        *_template(session.chat_template(), checkpoint.chat_template, log),
        *_ends(ends, checkpoint, reference),
    ]
    stopped = None
    if stops and checkpoint.chat_template is not None and not findings:
        stopped, wrong = _stops(session, checkpoint, log)
        findings += wrong
    return ParityResult(
        texts=len(texts),
        tokens=sum(map(len, encoded)),
        control_tokens=len(added),
        conversations=0 if checkpoint.chat_template is None else len(CONVERSATIONS),
        ends=tuple(sorted(ends)),
        stopped_after=stopped,
        notes=tuple(_decomposed(session, reference)),
        findings=tuple(findings),
    )


def reference_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizers library's own reading of the checkpoint's files. Raises PackError (exit code
    6) for what it cannot read."""
    try:
        return _reference_tokenizer(checkpoint)
    except PackError:
        raise
    except BaseException as error:
        # The library raises bare exceptions, and where its Rust panics, one that is none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise bad_input(
            f"{checkpoint.folder} has a tokenizer that cannot be read: {error}.",
            "Get its files again from where they were published.",
        ) from None


def _reference_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    # Late: only a build that measures needs it.
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    from packager.checkpoint.byte_level_bpe import QWEN_PATTERN
    from packager.checkpoint.rewrite import bpe_of

    if checkpoint.tokenizer_json is not None:
        return Tokenizer.from_file(str(checkpoint.tokenizer_json))
    if checkpoint.tiktoken is not None:
        return Tokenizer.from_str(bpe_of(checkpoint.tiktoken).decode())
    # What Qwen2Tokenizer makes of the two files.
    found = Tokenizer(models.BPE.from_file(str(checkpoint.vocab_json), str(checkpoint.merges_txt)))
    found.normalizer = normalizers.NFC()
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.decoder = decoders.ByteLevel()
    listed = checkpoint.tokenizer_config.get("added_tokens_decoder") or {}
    for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        found.add_tokens(
            [AddedToken(entry["content"], special=bool(entry.get("special")), normalized=False)]
        )
    return found


def _tokens(
    session: Session, reference: Tokenizer, texts: list[str], encoded: list[list[int]]
) -> Iterator[str]:
    """The first text that becomes other ids, and the first ids that become another text."""
    for text, wanted in zip(texts, encoded, strict=True):
        got = session.encode(text)
        if got != wanted:
            place, (mine, theirs) = next(
                (place, ids)
                for place, ids in enumerate(zip_longest(got, wanted))
                if ids[0] != ids[1]
            )
            around = _around(reference, wanted, place)
            yield (
                f"Token {place} of {around} is {_name(reference, mine)} in the artifact and "
                f"{_name(reference, theirs)} in the checkpoint"
            )
            break
    for wanted in encoded:
        text = reference.decode(wanted, skip_special_tokens=False)
        spoken = session.decode(wanted)
        if spoken != text:
            place = next(
                (
                    place
                    for place, signs in enumerate(zip_longest(spoken, text))
                    if signs[0] != signs[1]
                ),
                0,
            )
            mine, theirs = (part[max(0, place - 4) : place + _SHOWN] for part in (spoken, text))
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


def _control_tokens(session: Session, added: dict[int, str]) -> Iterator[str]:
    for number, text in added.items():
        got = session.encode(text)
        if got != [number]:
            yield (
                f"The control token {text} is {got} in the artifact and [{number}] in the "
                "checkpoint"
            )
            break


def _template(mine: str | None, theirs: str | None, log: Path) -> Iterator[str]:
    """Templates that are equal letter by letter need not be rendered."""
    if theirs is None or mine == theirs:
        return
    if mine is None:
        yield "The artifact has no chat template and the checkpoint has one"
        return
    rendered = render_both_apart(mine, theirs, CONVERSATIONS, log)
    for (name, _), (first, second) in zip(CONVERSATIONS.items(), rendered, strict=True):
        if first != second:
            if first is None or second is None:
                which = "artifact" if first is None else "checkpoint"
                yield f"Only the {which}'s chat template refuses a conversation ({name})"
            else:
                place = next(
                    place
                    for place, signs in enumerate(zip_longest(first, second))
                    if signs[0] != signs[1]
                )
                shown = [repr(text[max(0, place - 8) : place + _SHOWN]) for text in (first, second)]
                yield (
                    f"The chat template writes {shown[0]} in the artifact and {shown[1]} in the "
                    f"checkpoint ({name})"
                )
            return


def ends_of(checkpoint: Checkpoint, reference: Tokenizer) -> tuple[int, ...]:
    """Ids that end a turn: those of generation_config.json; without it the eos_token of the
    tokenizer, then that of config.json."""
    declared = checkpoint.generation_config.get("eos_token_id")
    if declared is None:
        entry = checkpoint.tokenizer_config.get("eos_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        declared = reference.token_to_id(text) if isinstance(text, str) else None
    if declared is None:
        declared = checkpoint.config.get("eos_token_id")
    numbers = declared if isinstance(declared, list) else [declared]
    return tuple(number for number in numbers if type(number) is int)


def _ends(ends: frozenset[int], checkpoint: Checkpoint, reference: Tokenizer) -> Iterator[str]:
    missing = [number for number in ends_of(checkpoint, reference) if number not in ends]
    if missing:
        yield (
            f"The artifact does not stop at {_name(reference, missing[0])}, which ends a turn of "
            "the checkpoint"
        )
    expected = {
        *ends_of(checkpoint, reference),
        *(reference.token_to_id(text) for text in ALSO_ENDS),
    }
    wrong = sorted(ends - expected)
    if wrong:
        yield (
            f"The artifact stops at {_name(reference, wrong[0])}, which does not end a turn of "
            "the checkpoint"
        )


def _stops(session: Session, checkpoint: Checkpoint, log: Path) -> tuple[int | None, list[str]]:
    """Follow one answer past its end, then again with the end respected: the second is the first up
    to there."""
    assert checkpoint.chat_template is not None
    text = render_apart(checkpoint.chat_template, _QUESTION, log, enable_thinking=False)
    prompt = session.encode(text)
    whole = session.generate(prompt, STOP_TOKENS, lambda token: None, stop=False)
    expected = set(ends_of(checkpoint, reference_tokenizer(checkpoint)))
    length = next((place for place, token in enumerate(whole) if token in expected), None)
    if length is None:
        return None, []
    answer = session.generate(prompt, STOP_TOKENS, lambda token: None)
    if answer != whole[:length]:
        return None, [f"An answer whose turn ends after {length} tokens went on to {len(answer)}"]
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


def _printable(text: str) -> str:
    """What a terminal cannot show, a zero-width space for example, by its number."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _around(reference: Tokenizer, ids: list[int], place: int) -> str:
    text = reference.decode(ids[max(0, place - 4) : place + 6], skip_special_tokens=False)
    return json.dumps(text, ensure_ascii=False)
