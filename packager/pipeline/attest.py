"""Does a model that was converted already follow from a checkpoint with a recipe? It is converted
again, and compared."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packager import sources
from packager.errors import no_room, usage
from packager.events import Event
from packager.files import expanded, free_bytes
from packager.json_values import JsonObject, at, at_or_none, object_at, objects_at
from packager.pipeline.cache import BuildCache
from packager.pipeline.job import Job
from packager.pipeline.run import run_alone
from packager.plan.additions import Additions
from packager.plan.adopted import Adopted
from packager.plan.adoption import adoptable, recognise
from packager.recipe import IMATRIX, split_id
from packager.runtime import Runtime
from packager.sources.reread import Evidence
from packager.units import human_bytes

_COPIES = 3
"""What lies on the disk meanwhile for a GGUF, in models: the one that is made again, and where they
differ the weights in 16 bits, which are twice as large at most for what is compared here. Folders
are compared matrix by matrix."""


@dataclass(frozen=True)
class Attested:
    """What came out: `facts` of the comparison, the `recipe` that was taken, and where the
    checkpoint came from."""

    model: Adopted
    recipe: str
    kind: str
    location: str
    revision: str | None
    facts: JsonObject

    @property
    def follows(self) -> str:
        """`exactly`, `nearly`, `another recipe` or `not`."""
        return at(self.facts, "follows", str)

    @property
    def different(self) -> list[JsonObject]:
        """The tensors that differ."""
        return objects_at(self.facts, "different")

    @property
    def network(self) -> list[JsonObject]:
        """Keys of network and vocabulary that differ."""
        return objects_at(object_at(self.facts, "metadata"), "network")

    @property
    def description(self) -> list[JsonObject]:
        """Keys that describe the file, and differ."""
        return objects_at(object_at(self.facts, "metadata"), "description")

    def as_dict(self) -> JsonObject:
        """JSON form."""
        return {
            "model": self.model.name,
            "recipe": self.recipe,
            "against": {"kind": self.kind, "location": self.location, "revision": self.revision},
            **self.facts,
        }


def attest(
    place: str,
    against: str,
    runtimes: Sequence[Runtime],
    recipe: str | None = None,
    additions: Additions | None = None,
    *,
    revision: str | None = None,
    offline: bool = False,
    cache: BuildCache | None = None,
) -> Generator[Event, None, Attested]:
    """Convert the checkpoint again in a temporary folder; yield events, return what differs.

    `recipe` is that of the model's own types unless it is named. Raises PackError: 2 where the
    model is none, or needs an importance matrix that was not named; 5 where the hub does not
    answer; 6 where the checkpoint is another network; 7 where disk does not suffice.
    """
    model = adoptable(place, runtimes)
    if model is None and not expanded(place).exists():
        raise usage(f"There is no file or folder {place!r}.", "Check the path.")
    if model is None or (job_of_model := model.attest) is None:
        raise usage(
            f"{place!r} is not a model that can be attested.",
            "Name a .gguf file, or a folder for OpenVINO or ONNX Runtime.",
        )
    added = additions or Additions()
    known = recognise(model, None, against, revision, offline)
    model = known.model
    wanted = recipe or model.recipe.id
    weights = _weights_of(wanted, model, added)
    folder = expanded(against)
    local = folder.is_dir()
    source = sources.parse(
        str(folder) if local else "hub",
        known.variant.repo_id if local else against,
        revision,
        offline,
    )
    work_cache = cache or BuildCache()
    _refuse_without_room(model, work_cache.root)
    shape = known.variant.shape
    assert shape is not None
    with work_cache.work_folder() as work:
        job, arguments = sources.job(source, shape)
        fetch = Job("fetch", job, {**arguments, "out": str(work / "checkpoint")})
        fetched = (yield from run_alone(fetch, work / "log")).value
        checkpoint = Path(at(fetched, "folder", str))
        compare = Job(
            "convert",
            job_of_model,
            {
                "files": [str(path) for path in model.files],
                "checkpoint": str(checkpoint),
                "recipe": {"weights": weights, "tensor_types": dict(added.tensor_types)},
                "imatrix": None if added.imatrix is None else str(added.imatrix.absolute()),
                "out": str(work / "out"),
            },
            evidence=Evidence.of(checkpoint, fetched),
            title="Quantize again and compare",
        )
        done = yield from run_alone(compare, work / "log", model.runtime, weights)
    facts = {key: value for key, value in done.value.items() if key != "rung"}
    commit = at_or_none(fetched, "revision", str)
    location = folder.resolve().name if local else against
    return Attested(model, wanted, source.kind, location, commit, facts)


def _weights_of(wanted: str, model: Adopted, added: Additions) -> str:
    """The weights of the recipe that the checkpoint is converted with. Raises PackError (usage) for
    one of another runtime, and for files that are too many or too few for it."""
    prefix, weights, _ = split_id(wanted)
    if prefix != model.recipe.prefix:
        raise usage(
            f"{wanted} is not a recipe of {model.recipe.prefix}.",
            f"Take one that begins with {model.recipe.prefix}.",
        )
    if model.kind != "gguf" and (flags := added.flags()):
        raise usage(
            f"{flags[0]} is for a GGUF, and {model.name} is a folder for {model.recipe.prefix}.",
            "Leave it out.",
        )
    if IMATRIX in model.recipe.marks and added.imatrix is None:
        raise usage(
            f"{model.files[0].name} was quantized with an importance matrix.",
            "Name it with --imatrix: without it other numbers come out.",
        )
    return weights


def _refuse_without_room(model: Adopted, folder: Path) -> None:
    """Raises PackError (exit code 7) where the copies that are compared do not fit."""
    copies = _COPIES if model.kind == "gguf" else 0
    needed = copies * sum(path.stat().st_size for path in model.files)
    free = free_bytes(folder)
    if needed > free:
        raise no_room(
            f"Attesting needs {human_bytes(needed)} of disk below {folder} and "
            f"{human_bytes(free)} are free.",
            "Free some space, or choose another place with QWEN_PACK_CACHE.",
        )
