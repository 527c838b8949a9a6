"""How far a text behind a picture is expected otherwise than by the unquantized model, whose
decoder is given the unquantized tower's embeddings: a fixed text, so that one pass is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import ExitCode, PackError, bad_input
from packager.quality.class_limits import read_classes
from packager.records import QualityVerdict
from packager.records.quality import PictureQuality
from packager.runtime import Report
from packager.session import VisionSession
from packager.units import human_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from packager.checkpoint import Checkpoint
    from packager.reference import Reference
    from packager.reference.tower import VisionTower

FILE = Path(__file__).with_name("picture_answer_limits.toml")

GRID = (10, 6)
"""Columns and rows of the picture in image tokens: axes that are exchanged show."""
UNEVEN = (10.3, 5.8)
"""Width and height in image tokens of the picture that the engine itself answers about: it must be
resized, to those of GRID."""
TEXTS = (
    "<|im_start|>user\n",
    "What is in this picture?<|im_end|>\n<|im_start|>assistant\n",
)
"""What stands before the picture and after it."""
ANSWER = (
    "The picture shows a red slope that grows brighter from left to right, green waves, and a "
    "chessboard of blue squares."
)
TOKENS = 24
"""Those of the answer that are compared at most."""
OWN, NEARLY = 8, 0.5
"""Tokens of the engine's own answer at most, and nats by which another one may be likelier:
arithmetic in another order decides between such two."""
_BRACKETS = (("<|vision_start|>", "<|vision_end|>"), ("<|vision_bos|>", "<|vision_eos|>"))
"""What stands around a picture, by the names of most checkpoints and by Qwen2.5-Omni's."""
_MOST = 20
"""Nats, the highest limit that makes sense."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Nats per token at most, on average and of the worst token."""

    kl_mean: float
    kl_max: float


@dataclass(frozen=True)
class Expected:
    """What the unquantized model says along `answer`: row `first` of `reference` and those after
    it. `skipped` says why there is none."""

    answer: tuple[int, ...] = ()
    first: int = 0
    reference: Reference | None = None
    skipped: str | None = None


def limits(grade: str | None, file: Path = FILE) -> AnswerLimits | None:
    """The limits of a recipe's class; None where nobody has set any."""
    return read_classes(file, AnswerLimits, _MOST).get(grade or "")


def expected(
    report: Report,
    source: Checkpoint,
    tower: VisionTower,
    picture: NDArray[np.uint8],
    real: bool,
) -> Expected:
    """Run the unquantized model over the prompt and the answer. `real` says that the weights are
    not random."""
    if not real:
        return Expected(skipped="the weights are random, so what they say means nothing")
    # Late: numpy, for the child that computes.
    import psutil

    from packager.quality.reference_tokenizer import reference_tokenizer
    from packager.reference import memory_bytes
    from packager.reference.seen import behind_picture

    tokenizer = reference_tokenizer(source)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    brackets = next(
        (pair for pair in _BRACKETS if all(len(encode(each)) == 1 for each in pair)), None
    )
    if brackets is None:
        return Expected(skipped="the tokenizer has no tokens that open and close a picture")
    before, after = encode(TEXTS[0] + brackets[0]), encode(brackets[1] + TEXTS[1])
    answer = tuple(encode(ANSWER)[:TOKENS])
    columns, rows = GRID
    needed = memory_bytes(source.shape, [len(before) + columns * rows + len(after) + len(answer)])
    free = psutil.virtual_memory().available
    if needed > free:
        sizes = f"{human_bytes(needed)} of memory and {human_bytes(free)} are free"
        return Expected(skipped=f"the unquantized model needs {sizes}")
    report.note(f"the unquantized model reads {len(answer)} tokens after a picture")
    try:
        said = behind_picture(
            source, before, tower.embed(picture), (rows, columns), [*after, *answer], report
        )
    except PackError as error:
        if error.exit_code is not ExitCode.USAGE:
            raise
        return Expected(skipped=f"there is no reference: {error.message.rstrip('.')}")
    return Expected(answer, len(after) - 1, said)


# Any: a picture as it goes to the process of a session.
def given(picture: NDArray[np.uint8]) -> dict[str, Any]:
    """A picture (height, width, 3) as a session takes it."""
    height, width, _ = picture.shape
    return {"data": picture.tobytes(), "width": width, "height": height}


def own_answer(
    model: VisionSession, wanted: Expected, picture: NDArray[np.uint8]
) -> tuple[int, ...]:
    """What the engine itself says of a picture, greedily; nothing where no text is compared."""
    if wanted.reference is None:
        return ()
    return tuple(model.look(TEXTS, [given(picture)], OWN, lambda _: None).tokens)


# Any: figures that go to the manifest, whose type checks them.
def compared(
    report: Report,
    model: VisionSession,
    wanted: Expected,
    picture: NDArray[np.uint8],
    own: tuple[int, ...] = (),
    resized: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """The fields `answer_*` of PictureQuality; `own` is the engine's own answer about the picture
    that was `resized` as the published processor does. Raises PackError (bad input) for an artifact
    that knows fewer tokens than its checkpoint."""
    if wanted.reference is None:
        return {"answer_skipped": wanted.skipped}
    from packager.quality.metrics import Comparison

    report.note(f"{len(wanted.answer)} tokens after a picture against the unquantized model")
    logits = model.answer_logits(TEXTS, given(picture), wanted.answer)
    theirs = wanted.reference.logits(0, wanted.first, wanted.first + len(wanted.answer))
    if logits.shape[1] < theirs.shape[1]:
        raise bad_input(
            f"The artifact knows {logits.shape[1]} tokens, and its checkpoint {theirs.shape[1]}.",
            "Name the checkpoint that it was made from, or build it again.",
        )
    collected = Comparison()
    collected.add(theirs, logits, wanted.answer)
    figures = collected.figures()
    kept = {"kl_mean": figures.kl_mean, "kl_max": figures.kl_max, "top1": figures.top1}
    return {
        "answer_tokens": figures.tokens,
        "answer_broken": figures.broken,
        **{f"answer_{k}": value if math.isfinite(value) else None for k, value in kept.items()},
        "answer_own": _followed(model, own, picture if resized is None else resized),
    }


def _followed(
    model: VisionSession, own: tuple[int, ...], picture: NDArray[np.uint8]
) -> float | None:
    """The share of the engine's own tokens that the logits which are compared call the likeliest,
    or nearly; None where it said nothing."""
    import numpy as np

    if not own:
        return None
    logits = model.answer_logits(TEXTS, given(picture), own)
    gap = logits.max(-1) - logits[np.arange(len(own)), list(own)]
    return float((gap <= NEARLY).mean())


def rows(found: PictureQuality, grade: str | None) -> tuple[QualityVerdict, ...]:
    """One row per limit of the recipe's class; a prediction that is not a number misses all."""
    verdicts = []
    if (share := found.answer_own) is not None:
        row = QualityVerdict(rule="image_answer_own", limit=1.0, measured=share, at_least=True)
        verdicts.append(row.but(passed=share >= 1))
    own = limits(grade)
    if own is None or found.answer_tokens is None:
        return tuple(verdicts)
    for rule in ("kl_mean", "kl_max"):
        limit, measured = getattr(own, rule), getattr(found, f"answer_{rule}")
        passed = not found.answer_broken and measured is not None and measured <= limit
        verdicts.append(
            QualityVerdict(
                rule=f"image_answer_{rule}", limit=limit, measured=measured, passed=passed
            )
        )
    return tuple(verdicts)
