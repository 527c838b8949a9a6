"""The two jobs of the stage: what the unquantized checkpoint says, kept; and the artifact against
it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError, bad_input
from packager.json_values import JsonDict, JsonObject, at
from packager.process import resolve
from packager.quality import cache_type, parity
from packager.quality import pictures as looking
from packager.quality import sounds as listening
from packager.quality import text as texts
from packager.quality.metrics import Comparison
from packager.quality.reference_tokenizer import reference_tokenizer
from packager.quality.text import Piece
from packager.quality.verdict import CHANCE, hardly_better_than_chance
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.session import Session
from packager.units import human_bytes

if TYPE_CHECKING:
    from packager.reference import Reference

KEPT = "reference.safetensors"

_FIRST = 32
"""Tokens of every part by which a model that has learnt nothing is known before the whole text is
read."""

_CONTEXT = 1024
"""Tokens of the sessions that are compared: more than a piece of text and than any prompt of the
parity check."""


def reference(
    report: Report,
    *,
    checkpoint: str,
    text: str | None,
    tokens: int,
    out: str,
    context: int | None = None,
) -> JsonObject:
    """Run the unquantized checkpoint over the text and keep the states behind its last norm: exact,
    4 bytes per token and channel.

    Returns `tokens` and `pieces`; `not_possible`, a sentence, where this machine's memory or our
    arithmetic does not reach; `says_nothing`, a sentence, for a model that has learnt nothing of
    the text. Raises PackError (bad input) naming a tensor that holds NaN. `context` is what the
    artifact is made for.
    """
    # Late: numpy, for the child that computes.
    import psutil

    from packager.checkpoint.numbers import check_all_finite
    from packager.reference import Reference, memory_bytes

    source = Checkpoint.open(Path(checkpoint))
    pieces = _pieces(source, text, tokens, context)
    needed, free = (
        memory_bytes(source.shape, [len(piece.ids) for piece in pieces]),
        psutil.virtual_memory().available,
    )
    if needed > free:
        sizes = f"{human_bytes(needed)} of memory and {human_bytes(free)} are free"
        return {"not_possible": f"the unquantized model needs {sizes}"}
    report.note(f"the unquantized model reads {sum(len(piece.ids) for piece in pieces)} tokens")
    check_all_finite(source)
    try:
        first = list(
            {
                piece.part: piece.ids[:_FIRST] for piece in reversed(pieces) if len(piece.ids) > 1
            }.values()
        )
        if first and _learnt_nothing(
            Reference.compute(source, first, report), first, source.shape.vocab
        ):
            return {"says_nothing": CHANCE}
        computed = Reference.compute(source, [piece.ids for piece in pieces], report)
    except PackError as error:
        if error.exit_code is not ExitCode.USAGE:
            raise
        return {"not_possible": f"there is no reference: {error.message.rstrip('.')}"}
    computed.save(Path(out) / KEPT, KEPT)
    return {"tokens": sum(len(piece.ids) for piece in pieces), "pieces": len(pieces)}


def _learnt_nothing(computed: Reference, pieces: Sequence[Sequence[int]], vocabulary: int) -> bool:
    """Whether the model predicts the beginning of no part better than chance: then the rest need
    not be computed."""
    import numpy as np

    for number, ids in enumerate(pieces):
        logits = np.asarray(computed.logits(number, 0, len(ids) - 1), np.float64)
        top = logits.max(axis=1)
        lost = (
            np.log(np.exp(logits - top[:, None]).sum(axis=1))
            + top
            - logits[np.arange(len(ids) - 1), list(ids[1:])]
        )
        if not hardly_better_than_chance(float(np.exp(lost.mean())), vocabulary):
            return False
    return True


def compare(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    checkpoint: str,
    text: str | None,
    tokens: int,
    reference: str | None,
    stops: bool,
    profile: JsonObject | None = None,
    context: int | None = None,
    pictures: JsonObject | None = None,
    sounds: JsonObject | None = None,
    cache: JsonObject | None = None,
) -> JsonObject:
    """Parity of tokenizer, template and end of turn, and with a `reference` (the folder that the
    other job left) the divergence.

    With `pictures` (`session` of the runtime, `grade` of the vision tower's weights, `answers`, see
    packager.quality.pictures) what is seen is compared besides, with `sounds` likewise audio
    embeddings, with `cache` (see packager.quality.cache_type) the packaged cache type with one of
    16 bits. `stops` says that the weights are real, so that an answer can be expected to end.
    Returns `parity`, `figures` over all parts, `parts[]` with the name of each, and
    `compare_seconds`.
    """
    source = Checkpoint.open(Path(checkpoint))
    make = resolve(session)
    started = time.monotonic()
    pieces = _pieces(source, text, tokens, context)
    # The packaged context, as an app opens it.
    longest = max(_CONTEXT, context or 0, *(len(piece.ids) for piece in pieces))
    model: Session = make(artifact, {**settings, "context": min(longest, source.shape.context)})
    try:
        report.note("tokens, template and end of turn against the checkpoint's own")
        with temporary_folder() as folder:
            same = parity.check(
                model,
                source,
                folder / "templates.log",
                stops=stops,
                profile=Profile.from_dict(profile),
            )
        facts: JsonDict = {"parity": same.as_dict(), "figures": None, "parts": []}
        if reference is not None:
            facts |= divergence(report, model, source, pieces, Path(reference) / KEPT)
        else:
            facts |= numbers_at_all(model, pieces[0].ids[:_FIRST])
    finally:
        model.close()
    if pictures is not None:
        seen = looking.compare(report, pictures, artifact, settings, source)
        facts |= {**seen, "tower_grade": at(pictures, "grade", str)}
    if sounds is not None:
        heard = listening.compare(report, at(sounds, "session", str), artifact, settings, source)
        facts |= {**heard, "tower_grade": at(sounds, "grade", str)}
    if cache is not None and facts["figures"] is not None:
        facts |= _cache(report, cache, artifact, settings, source, text, context, profile)
    return {**facts, "compare_seconds": time.monotonic() - started}


def _cache(
    report: Report,
    asked: JsonObject,
    artifact: str,
    settings: JsonObject,
    source: Checkpoint,
    text: str | None,
    context: int | None,
    profile: JsonObject | None,
) -> JsonObject:
    """What the packaged cache type loses when it is full; see packager.quality.cache_type."""
    filled = context or _CONTEXT
    with temporary_folder() as folder:
        ids = cache_type.full(
            source,
            texts.shipped() if text is None else texts.of_file(Path(text)),
            encoder(source),
            filled,
            Profile.from_dict(profile),
            folder / "templates.log",
        )
    opened = {**settings, "context": min(max(filled, len(ids)), source.shape.context)}
    return cache_type.compare(report, asked, artifact, opened, source, ids)


def numbers_at_all(model: Session, ids: Sequence[int]) -> dict[str, int]:
    """`predictions` over a first piece of text, and how many of them are `not_numbers`: what random
    weights can show as well."""
    import numpy as np

    broken = sum(int((~np.isfinite(block).all(axis=1)).sum()) for block in model.logits(ids))
    return {"predictions": len(ids), "not_numbers": broken}


def divergence(
    report: Report, model: Session, source: Checkpoint, pieces: list[Piece], kept: Path
) -> JsonObject:
    """What a loaded artifact lost against the reference in the file `kept`. Raises PackError (bad
    input) for one of other pieces."""
    from packager.reference import Reference

    wanted = Reference.load(kept, source, [piece.ids for piece in pieces], KEPT)
    if wanted is None:
        raise bad_input(
            f"{kept} is the reference of another checkpoint or text.",
            "`qwen-pack cache --clear` empties the cache.",
        )
    by_part: dict[str, Comparison] = {}
    done, total = 0, sum(len(piece.ids) for piece in pieces)
    for number, piece in enumerate(pieces):
        part = by_part.setdefault(piece.part, Comparison())
        for start, logits in _blocks(model, piece.ids):
            # Behind the last token of a piece nothing is known to follow.
            end = min(start + len(logits), len(piece.ids) - 1)
            if logits.shape[1] < source.shape.vocab:
                raise bad_input(
                    f"The artifact knows {logits.shape[1]} tokens, and its checkpoint "
                    f"{source.shape.vocab}.",
                    "Name the checkpoint that it was made from, or build it again.",
                )
            if end > start:
                part.add(
                    _of(wanted, number, start, end),
                    logits[: end - start],
                    piece.ids[start + 1 : end + 1],
                )
            done += len(logits)
            report.progress(done, total, "tokens")
    whole = Comparison()
    for part in by_part.values():
        whole.extend(part)
    return {
        "vocabulary": source.shape.vocab,
        "figures": whole.figures().as_dict(),
        "parts": [{"name": name, **part.figures().as_dict()} for name, part in by_part.items()],
    }


def _blocks(model: Session, ids: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Every block of logits with the number of its first token. Raises PackError where the engine
    gives more or fewer rows."""
    at = 0
    for block in model.logits(ids):
        yield at, block
        at += len(block)
    if at != len(ids):
        raise bad_input(
            f"The engine returned logits of {at} tokens instead of {len(ids)}.",
            "The artifact is broken: build it again.",
        )


def _of(wanted: Reference, number: int, start: int, end: int) -> Any:
    return wanted.logits(number, start, end)


def _pieces(source: Checkpoint, text: str | None, tokens: int, context: int | None) -> list[Piece]:
    gate_text, encode = (
        texts.shipped() if text is None else texts.of_file(Path(text)),
        encoder(source),
    )
    window, long = piece_tokens(source, context)
    pieces = texts.pieces(gate_text, encode, tokens, window)
    if long is None or max(len(piece.ids) for piece in pieces) >= long:
        return pieces
    return [*pieces, *texts.long_piece(gate_text, encode, long)]


def piece_tokens(source: Checkpoint, context: int | None = None) -> tuple[int, int | None]:
    """Tokens of an ordinary piece at most, and of the long one that is read besides; None where
    there is none.

    The long one reaches beyond a sliding window, and beyond the context before positions were
    scaled: what begins there would show in no shorter piece. `context` is what the artifact is made
    for: an engine that knows no windows builds one within them, and is not asked for more.
    """
    positions, limits = (
        source.positions,
        [window for window in source.windows if window is not None],
    )
    if not positions.plain and positions.original:
        limits.append(positions.original)
    most = source.shape.context
    if context is not None and (limits or positions.fixed_up_to is not None):
        most = min(most, context)
    reached = [
        min(limit + texts.BEYOND, most)
        for limit in limits
        if limit < min(most, texts.FURTHEST - texts.BEYOND)
    ]
    return min(texts.WINDOW, most), max(reached, default=None)


def encoder(source: Checkpoint) -> Any:
    """A function from text to token ids, by the checkpoint's own tokenizer."""
    tokenizer = reference_tokenizer(source)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
