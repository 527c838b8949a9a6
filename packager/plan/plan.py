"""The plan of a build: frozen, named, and checked as a whole before the first byte is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from packager.chat.profile import Profile
from packager.device.identity import UNKNOWN, Identity, Place
from packager.device.target import Target
from packager.engine_check.outcome import Start
from packager.engines import installed
from packager.json_values import JsonObject
from packager.need.languages import in_words
from packager.need.workload import Workload
from packager.plan.additions import Additions
from packager.plan.adoption import Recognised
from packager.predict.memory import Footprint
from packager.quality.gate import Gate
from packager.records.speculation import Untried
from packager.runtime import Runtime, Tools
from packager.select import Candidate
from packager.select.preference import undercut
from packager.shape import Shape
from packager.sources import Source


@dataclass(frozen=True)
class Draft:
    """A model of the same vocabulary that drafts for another: either a `plan` by which it is
    converted, or a finished `package`. `footprint` is that of it alone, `states` the bytes of its
    recurrent state."""

    variant: str
    recipe: str
    artifact_bytes: int
    footprint: Footprint
    states: int = 0
    plan: Plan | None = None
    package: Path | None = None

    def as_dict(self) -> JsonObject:
        """JSON form, without a path of this machine."""
        return {
            "variant": self.variant,
            "recipe": self.recipe,
            "artifact_bytes": self.artifact_bytes,
            "footprint": self.footprint.as_dict(),
        }


@dataclass(frozen=True)
class Plan:
    """What will be built: the chosen candidate, everything that was rejected for it, where the
    weights come from.

    `enforced` names the budgets that fail the build when the measurement misses them; the others
    are reported. `sustained_s` seconds of decoding without a pause show whether the machine
    throttles. `place` says whether this machine is the device, so that its figures may judge those
    budgets. `gate` says how the quality gate is to be held, `profile` how the model is to behave.
    `start` is how the engine is started here, None before it was tried. `recognised` is a
    model that was converted already, with what it is. `warm` says that the state of the prefix
    that the profile fixes is to be kept, `speculate` in which ways tokens are drafted, each to be
    measured, `untried` the ways of them that have no room, `draft` the model that drafts, and
    `heads` that the model's own draft module is converted with it.
    """

    target: Target
    workload: Workload
    chosen: Candidate
    others: tuple[Candidate, ...]
    runtime: Runtime
    source: Source
    out: Path
    enforced: frozenset[str] = frozenset()
    version: str | None = None
    sustained_s: float = 0
    place: Place = UNKNOWN
    gate: Gate = field(default_factory=Gate)
    additions: Additions = field(default_factory=Additions)
    profile: Profile = field(default_factory=Profile)
    start: Start | None = None
    recognised: Recognised | None = None
    warm: bool = False
    speculate: tuple[str, ...] = ()
    untried: tuple[Untried, ...] = ()
    draft: Draft | None = None
    heads: bool = False

    @cached_property
    def name(self) -> str:
        """The package's name; it says when the weights are random."""
        return package_name(self.chosen, self.source)

    @cached_property
    def versions(self) -> dict[str, str | None]:
        """The installed version of every distribution that takes part; None for one that is
        missing."""
        return {name: installed(name) for name in self.tools.distributions}

    @property
    def tools(self) -> Tools:
        """What must be installed for this build."""
        return self.runtime.tools(self.shape, self.chosen.recipe)

    @property
    def device(self) -> Identity:
        """What tells the device from other machines."""
        return Identity.of(self.target)

    @property
    def shape(self) -> Shape:
        """The shape of the chosen variant."""
        assert self.chosen.variant.shape is not None
        return self.chosen.variant.shape

    @property
    def gpu_layers(self) -> int:
        """Layers that run on a GPU with its own memory, as the engine's option counts them; 0
        where the target has none."""
        return self.chosen.split.gpu_layers if self.chosen.split else 0

    def why(self) -> str:
        """The choice in one sentence."""
        if self.recognised is not None:
            return self.recognised.sentence()
        peers = len({candidate.variant.repo_id for candidate in (self.chosen, *self.others)})
        if peers == 1:
            return f"{self.chosen.variant.name} was named by the user."
        reached = {
            "smallest": "the smallest",
            "quality": "the best by published scores",
            "speed": "the fastest",
            "balanced": "the best balanced",
            "cost": "the one with the cheapest answers",
        }
        within = undercut(self.chosen, self.others, self.workload.prefer)
        return (
            f"Of {peers} variants {self.chosen.variant.name} is "
            f"{reached[self.workload.prefer]}{within} that passes every rule "
            f"of the use case {self.workload.use_case!r}{in_words(self.workload.languages)} on "
            f"{self.target.name}."
            + "".join(f" It may miss {reason}." for reason in self.chosen.may_miss)
        )

    def smaller(self) -> list[JsonObject]:
        """Why nothing smaller was taken: per smaller variant the reasons of its best candidate."""
        seen = {self.chosen.variant.repo_id}
        rows: list[JsonObject] = []
        for candidate in self.others:
            variant = candidate.variant
            if (
                variant.repo_id not in seen
                and variant.params_total
                and variant.params_total < (self.chosen.variant.params_total or 0)
            ):
                seen.add(variant.repo_id)
                reasons = [asdict(reason) for reason in candidate.reasons or candidate.may_miss]
                rows.append(
                    {"variant": variant.repo_id, "recipe": candidate.recipe.id, "reasons": reasons}
                )
        return rows

    def as_dict(self) -> JsonObject:
        """JSON form: what `build` is about to do."""
        return {
            "name": self.name,
            "target": self.target.name,
            "workload": self.workload.as_dict(),
            "chosen": self.chosen.as_dict(),
            "source": self.source.as_dict(),
            "out": str(self.out),
            "place": self.place.as_dict(),
            "gate": self.gate.as_dict(),
            **({"profile": self.profile.as_dict()} if self.profile else {}),
            **({"adopted": self.recognised.as_dict()} if self.recognised else {}),
            **({"warm": True} if self.warm else {}),
            **({"speculate": list(self.speculate)} if self.speculate else {}),
            **({"untried": [row.to_json() for row in self.untried]} if self.untried else {}),
            **({"draft": self.draft.as_dict()} if self.draft else {}),
        }


def package_name(chosen: Candidate, source: Source) -> str:
    """`qwen3-0.6b-openvino-int4_sym_g128`; `-lora` says that adapters are in it, `-dummy` that the
    weights are random."""
    recipe = chosen.recipe.id.replace(":", "-").replace("/", "-")
    lora = "-lora" if source.adapters else ""
    return (
        f"{chosen.variant.name}{lora}-{recipe}{'-dummy' if source.kind == 'dummy' else ''}".lower()
    )
