"""What trying an engine in one way came to, and how the engine is started from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from packager.engine_check.ladder import DEFAULT
from packager.json_values import JsonObject
from packager.runtime import Rung

RIGHT, WRONG, DIED, HUNG, FAILED = "right", "wrong", "died", "hung", "failed"
RESULTS = (RIGHT, WRONG, DIED, HUNG, FAILED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rung tried: its result, what the engine was doing (`part`, empty where all was done), and
    in words what happened."""

    rung: str
    result: str
    part: str = ""
    signal: str | None = None
    said: str = ""
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the engine may be used in this way."""
        return self.result == RIGHT

    def words(self) -> str:
        """`died of SIGSEGV, an access to memory that is not its own, while computing Q8_0 with 1
        thread`."""
        during = f" {self.part}" if self.part else ""
        return {
            RIGHT: "right",
            WRONG: f"wrong numbers{during}: {self.said}",
            DIED: f"died of {self.said}{during}",
            HUNG: f"no answer{during}: {self.said}",
            FAILED: f"failed{during}: {self.said}",
        }[self.result]

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Outcome:
        """The inverse of `as_dict`. Raises ValueError for what it has not written."""
        if not isinstance(data, dict) or data.keys() != {
            "rung",
            "result",
            "part",
            "signal",
            "said",
            "seconds",
        }:
            raise ValueError(f"{data!r} is not a valid outcome")
        if data["result"] not in RESULTS or not isinstance(data["seconds"], int | float):
            raise ValueError(f"{data!r} is not a valid outcome")
        if not all(isinstance(data[key], str) for key in ("rung", "part", "said")):
            raise ValueError(f"{data!r} is not a valid outcome")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Start:
    """How an engine is started on this machine, and what was tried before; `features` are those
    that this way avoids here."""

    runtime: str
    rung: Rung = field(default_factory=lambda: Rung(DEFAULT))
    before: tuple[Outcome, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def default(self) -> bool:
        """Whether the engine runs as it comes."""
        return self.rung.name == DEFAULT

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every process that loads the engine."""
        return dict(self.rung.environment)

    @property
    def identity(self) -> JsonObject:
        """What the keys of stages hold of it: nothing where the engine runs as it comes."""
        return (
            {}
            if self.default
            else {"rung": {"name": self.rung.name, "environment": self.environment}}
        )

    @property
    def name(self) -> str | None:
        """The rung as a measurement names it; None for the engine as it comes."""
        return None if self.default else self.rung.name

    def sentence(self) -> str:
        """Why it is not started as it comes; empty where it is."""
        if self.default:
            return ""
        happened = "; ".join(
            f"{'as installed' if outcome.rung == DEFAULT else outcome.rung}: {outcome.words()}"
            for outcome in self.before
        )
        suspected = (
            f" Suspected: {' '.join(self.features)} of this processor." if self.features else ""
        )
        started = (
            f"{self.runtime} is started as {self.rung.name!r}, since it is not right "
            f"otherwise here ({happened})."
        )
        return f"{started}{suspected} {self.rung.reason}"

    def settings(self) -> JsonObject | None:
        """The manifest's `runtime.settings`: null where the engine runs as it comes."""
        if self.default:
            return None
        return {
            "rung": self.rung.name,
            "reason": self.sentence(),
            "environment": self.environment,
            "flags": list(self.rung.flags),
            "variables": _plain(self.rung.variables),
            "options": _plain(self.rung.options),
            "before": [outcome.as_dict() for outcome in self.before],
        }


def _plain(values: Mapping[str, str]) -> dict[str, str]:
    return dict(values)
