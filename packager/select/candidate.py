"""One way to run one variant on one device, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from packager.json_values import JsonObject
from packager.predict.forecast import Forecast
from packager.predict.memory import Footprint, kv_cache_bytes
from packager.predict.offload import Split
from packager.recipe import Recipe

if TYPE_CHECKING:
    from packager.catalog import Variant
    from packager.shape import Shape

Verdict = Literal["chosen", "fits", "may miss", "rejected"]


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that is not met: what it would take, and what there is, as people read it and as
    numbers.

    The numbers are in base units (bytes, tokens, tokens per second, milliseconds, score points),
    None where the rule is no matter of degree.
    """

    rule: str
    needs: str
    has: str
    needs_value: float | None = None
    has_value: float | None = None

    @property
    def ratio(self) -> float:
        """How far off, from 1 (nearly met) upwards; infinite where it is no matter of degree."""
        if not self.needs_value or not self.has_value:
            return float("inf")
        ratio = self.needs_value / self.has_value
        return max(ratio, 1 / ratio)

    def as_dict(self) -> JsonObject:
        """The fields of the contract, and the numbers behind the words."""
        return {
            "rule": self.rule,
            "needs": self.needs,
            "has": self.has,
            "needs_value": self.needs_value,
            "has_value": self.has_value,
        }

    def __str__(self) -> str:
        if self.rule == "runtime":
            return f"{self.rule}: {self.has}"
        return f"{self.rule}: needs {self.needs}, has {self.has}"


@dataclass(frozen=True, slots=True)
class Alone:
    """What a single one of several sequences would take, and how fast it would be: what a benchmark
    measures."""

    footprint: Footprint
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant in a recipe with a context, measured against every rule.

    `sized` is False where no runtime builds the variant so: bytes and rates are then zero here
    and null in JSON. `may_miss` are limits that the forecast misses, though not its whole
    range: the truth may lie on either side. They reject nothing, but a candidate without them
    stands before one with them. `crowded` says that it leaves less than a tenth of the memory
    free, or does not fit on the GPU whole. `coarse` marks a recipe that leaves less than 4 bits
    to a weight, `held` one that its runtime holds back for the task; `notes` are worth knowing
    but reject nothing; `rank` is the place of its runtime and recipe in the target's
    preference, `order` that of the recipe in its runtime's, best quality first. On a GPU with
    memory of its own `footprint` is what lies there, and `split` says how many layers that are
    and what the system's memory holds beside them. Both count all sequences of the workload;
    `alone` is there where it has several. `machine_seconds` is what a usual answer takes of
    the machine's time.
    """

    variant: Variant
    runtime: str
    recipe: Recipe
    context: int
    verdict: Verdict
    reasons: tuple[Reason, ...]
    footprint: Footprint
    artifact_bytes: int
    forecast: Forecast
    scores: dict[str, float]
    quality: float | None = None
    bits_per_weight: float = 0.0
    coarse: bool = False
    sized: bool = True
    notes: tuple[str, ...] = ()
    rank: tuple[int, int] = field(default=(0, 0))
    order: int = 0
    split: Split | None = None
    may_miss: tuple[Reason, ...] = ()
    crowded: bool = False
    alone: Alone | None = None
    machine_seconds: float = 0.0
    held: bool = False

    @property
    def last(self) -> int:
        """Behind which others it stands, whatever is preferred: 0 behind none, 1 (held back) behind
        those, 2 (coarse) behind both."""
        return 2 if self.coarse else int(self.held)

    @property
    def load(self) -> int:
        """Peak bytes in the memory that it runs from: of several GPUs in the fullest."""
        return (self.split.fullest if self.split else self.footprint).peak

    @property
    def beside(self) -> int:
        """Peak bytes that a model on a GPU with memory of its own takes of the system's."""
        return self.split.host.peak if self.split else 0

    @property
    def passes(self) -> bool:
        """Whether no rule stands against it."""
        return not self.reasons

    @property
    def sure(self) -> bool:
        """Whether no rule stands against it and none may."""
        return not self.reasons and not self.may_miss

    @property
    def label(self) -> str:
        """How people write it: `Qwen3-0.6B as gguf:Q4_K_M`."""
        return f"{self.variant.name} as {self.recipe.id}"

    def predicted(self) -> JsonObject:
        """What a manifest keeps of it: memory, rates and size, before anything is built, of one
        sequence."""
        whole, shape = self.alone or self, self.variant.shape
        return {
            "footprint": whole.footprint.as_dict(),
            "forecast": whole.forecast.as_dict(),
            "artifact_bytes": self.artifact_bytes,
            **({"image_tokens": shape.image_tokens} if shape and shape.image_tokens else {}),
            **({"audio_seconds": shape.audio_seconds} if shape and shape.audio_seconds else {}),
        }

    def as_dict(self) -> JsonObject:
        """The fields of the contract."""
        return {
            "variant": self.variant.repo_id,
            "runtime": self.runtime,
            "recipe": self.recipe.id,
            "context": self.context,
            "verdict": self.verdict,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "may_miss": [reason.as_dict() for reason in self.may_miss],
            "footprint": self.footprint.as_dict() if self.sized else None,
            "artifact_bytes": self.artifact_bytes if self.sized else None,
            "forecast": self.forecast.as_dict() if self.sized else None,
            "scores": self.scores,
            "quality": self.quality,
            "bits_per_weight": round(self.bits_per_weight, 2) if self.sized else None,
            "machine_seconds": round(self.machine_seconds, 3) if self.sized else None,
            "gpu_layers": self.split.gpu_layers if self.split else None,
            "offload": self.split.as_dict() if self.split else None,
            "notes": list(self.notes),
            "state": self._state(),
        }

    def _state(self) -> JsonObject | None:
        """Bytes of a kept prefix: so many per token, and so many whatever its length."""
        shape = self.variant.shape
        if not self.sized or shape is None or shape.task != "generate":
            return None
        return _kept(shape, self.recipe.kv_bits)


@cache
def _kept(shape: Shape, kv_bits: float) -> JsonObject:
    fixed = kv_cache_bytes(shape, 0)
    return {
        "bytes_per_token": kv_cache_bytes(shape, 1, kv_bits) - fixed,
        "fixed_bytes": fixed,
    }
