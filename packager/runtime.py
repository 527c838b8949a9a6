"""The contract that every runtime adapter implements: what it can build, how large it gets, who
does the work.

An adapter is light: importing it imports no engine. The work happens in child processes, which
find it by the dotted names in `build_job` and `session`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from packager.json_values import JsonObject
from packager.predict.forecast import Speed
from packager.predict.memory import Drafting, Footprint
from packager.recipe import Recipe
from packager.shape import Shape

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class BuildNeeds:
    """What a conversion takes on the machine that runs it, in bytes: peak resident memory; disk,
    with what stands in between."""

    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Tools:
    """Distributions that a build takes, and the extra of the qwen-pack distribution that installs
    them; a plug-in of another distribution has none and writes ""."""

    extra: str
    distributions: tuple[str, ...]
    serves: str = ""
    """What they are for, where a runtime has more than one set: `mixtures of experts`."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to start an engine. The first of a ladder is the engine's own, which sets nothing."""

    name: str
    reason: str = ""
    """Why this way is safer than the one before, and what it costs, as a sentence."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are there before the engine is loaded, in every process of ours that loads
    it."""
    avoids: tuple[str, ...] = ()
    """Features of processors that this way leaves alone, as Linux names them in /proc/cpuinfo."""
    flags: tuple[str, ...] = ()
    """What does the same for the engine's own command line tools,"""
    variables: Mapping[str, str] = field(default_factory=dict)
    """for whatever else starts the engine,"""
    options: Mapping[str, str] = field(default_factory=dict)
    """and for a program that opens the engine by its library: options by their own names."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe that an engine is tried with: one for each family of weight types, so that each
    family of kernels runs."""

    recipe: str
    least: float
    """The least correlation of its logits with those of the unquantized weights, between 0 and
    1."""
    narrow: bool = False
    """Also with matrices of 64 columns: smaller than the tiles of some processors."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """How an engine is tried on a machine, and the ways to start it there, each safer than the one
    before."""

    distributions: tuple[str, ...]
    """Those whose files are the engine: another one of them has to be tried again."""
    trials: tuple[Trial, ...]
    rungs: tuple[Rung, ...]
    on_another_processor: str = ""
    """What a person does who runs a package on a processor where the engine dies, as a sentence of
    Markdown."""
    reinstall: str = ""
    """The command that installs the engine anew for this processor."""


@runtime_checkable
class Laddered(Protocol):
    """What a runtime has beside Runtime if its engine is tried before it is used, and can be
    started in safer ways."""

    def ladder(self) -> Ladder:
        """The same at every call. Its variables are in the environment of whatever opens a session
        or builds an artifact."""


class Report(Protocol):
    """How work in a child process speaks to the build that started it."""

    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """`done` of `total` units; sent on at most ten times a second."""

    def note(self, text: str) -> None:
        """One line worth reading."""

    def text(self, piece: str) -> None:
        """A piece of what a model says."""


@runtime_checkable
class Runtime(Protocol):
    """The adapter of one inference engine."""

    name: str
    """As the registry and the targets know it, e.g. `llama.cpp`."""
    prefix: str
    """First word of its recipe ids, e.g. `gguf`."""
    extra: str
    """The extra of the qwen-pack distribution that installs the engine; "" for a plug-in of another
    distribution, see InstallsItself."""
    distributions: tuple[str, ...]
    """What must be installed to run, and to build what `more_tools` does not name."""
    more_tools: tuple[Tools, ...]
    """Further sets that some shapes take, each with all its distributions."""
    build_job: str
    """`module:function`, a job: (report, *, checkpoint, recipe, workload, out) -> facts,
    `artifact_bytes` among them.

    Paths are strings, the other arguments JSON objects. `out` is the folder that the job makes and
    fills, below one that is there. `recipe` holds the Recipe's fields, and as
    `inputs` what the build knows beside: `origin` (kind, repo_id, revision, license, license_name
    of the weights), the digest of the checkpoint as `checkpoint_key`, and the paths of files that
    the user added, by name.
    """
    session: str
    """`module:class` of its Session."""
    context_in_artifact: bool
    """Whether the artifact holds the workload's context, so that another one takes another
    conversion."""

    def recipes(self) -> Sequence[Recipe]:
        """Every recipe with the default cache type, best quality first."""

    def recipe(self, weights: str, kv: str | None = None) -> Recipe:
        """The recipe of that name. Raises PackError (usage) for an unknown one, naming the
        nearest."""

    def obstacle(self, shape: Shape, recipe: Recipe) -> str | None:
        """Why this shape cannot be built that way, as a sentence; None when it can."""

    def tools(self, shape: Shape, recipe: Recipe) -> Tools:
        """What must be installed to build this shape that way; the versions go into the
        manifest."""

    def artifact_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """Size on disk of the model files."""

    def footprint(self, shape: Shape, recipe: Recipe, context: int) -> Footprint:
        """Resident bytes while it runs with that context."""

    def decode_bytes(self, shape: Shape, recipe: Recipe, context: int) -> int:
        """Bytes read from memory for one token with `context` tokens in the cache."""

    def speed(self, shape: Shape, recipe: Recipe, isa: str) -> Speed:
        """How it runs that shape against a device's rates.

        `isa` are the device's instruction sets, the architecture first; where models run on a GPU
        or NPU, its back end (cuda, metal, vulkan, npu) stands before them.
        """

    def build_needs(self, shape: Shape, recipe: Recipe) -> BuildNeeds:
        """What the conversion takes on the machine that runs it."""

    def least_file_bytes(self, shape: Shape, recipe: Recipe) -> int:
        """The smallest limit on one file that it can be built below, about: what it splits no
        further, or the whole artifact."""

    def how_to_run(self, recipe: Recipe, workload: JsonObject) -> str:
        """Markdown for the package's README: exact commands that run the artifact in `model/`
        without qwen-pack.

        `workload` has its own fields, and `gpu_layers`: how many layers the target's GPU takes, 0
        without one, and `files`: the model's files in the package.
        """


@runtime_checkable
class InstallsItself(Protocol):
    """What a Runtime of another distribution has besides, where `pip install` and the names in
    `distributions` do not install its engine."""

    install: str
    """The command that does, e.g. `pip install 'my-runtime[engine]'`."""


@runtime_checkable
class Retrieves(Protocol):
    """What a Runtime has besides where it builds embedders and rerankers."""

    retrieval_session: str
    """`module:class` of its RetrievalSession."""


@runtime_checkable
class HoldsBack(Protocol):
    """What a Runtime has besides where some of its recipes are known to lose too much in a task."""

    def held_back(self, recipe: Recipe, task: str) -> str | None:
        """Why a recipe stands behind all others for a task (generate, embed, rerank), as a sentence
        that names its source; None where it does not."""


@runtime_checkable
class AnswersSeveral(Protocol):
    """What a Runtime has besides where its packages can answer several sequences at once."""

    answers_at_once: bool
    """Whether they can: `how_to_run` then says how, for the workload's `parallel`."""


@runtime_checkable
class Sees(Protocol):
    """What a Runtime has besides where it builds vision towers, whose packages take pictures."""

    projector: str
    """The name of the tower's file in the artifact."""
    vision_session: str
    """`module:class` of its VisionSession."""
    pictures_on: tuple[str, ...]
    """The units of a device (cpu, gpu, npu) on which its packages are known to take pictures."""
    image_limit_in_artifact: bool
    """Whether the artifact holds the most tokens of a picture, so that another limit takes another
    conversion."""


@runtime_checkable
class Drafts(Protocol):
    """What a Runtime has besides where its engine can check drafted tokens."""

    drafts: tuple[str, ...]
    """The ways that it knows of packager.measure.speculation: `lookup`, `draft`, `mtp`."""

    def drafting(self, shape: Shape, recipe: Recipe, context: int, how: str) -> Drafting:
        """What a way takes beside the model, a draft model's own left out."""


@runtime_checkable
class RefusesDrafts(Protocol):
    """What a Runtime has besides where its engine could draft, and why that is not used."""

    no_drafts: str
    """The reason, as the end of a sentence."""


@runtime_checkable
class Serves(Protocol):
    """What a Runtime has besides where `qwen-pack serve` takes another engine than the servers that
    are exported, whose own are in packager.shipping.server."""

    serving_engine: str
    """`module:class` of an Engine of packager.shipping.server.answers; called with the server's
    settings, those of a session, and the path of a log."""
