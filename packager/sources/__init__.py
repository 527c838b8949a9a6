"""Where checkpoints come from: the hub, ModelScope, a local folder, or random weights. All hand
back the same facts.

Fetching runs in a child process. A source's job has the signature `(report, *, ..., out) -> facts`,
where `out` is a folder that does not exist yet, for a source that writes one of its own.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from packager.checkpoint import composed, described
from packager.errors import usage
from packager.files import expanded
from packager.json_values import JsonDict, JsonObject
from packager.shape import Shape
from packager.sources import adopted as adoption
from packager.sources.adapters import AdapterSource, as_arguments, stamp
from packager.sources.adopted import AdoptedFiles

Kind = Literal["hub", "local", "dummy", "modelscope", "gguf", "openvino", "onnx"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights of `repo_id` come from.

    `location` is the repository id for the hub and the dummy, an absolute path for a local folder.
    `revision` is a branch, tag or commit of the hub. `offline` keeps the hub source to the files
    that are in its cache already. `adapters` are merged into the weights in their order, and `base`
    is the shape without them. `adopted` is a model that was converted already, in `location`, and
    `against` the checkpoint that it is compared with.
    """

    kind: Kind
    location: str
    revision: str | None
    repo_id: str
    offline: bool = False
    adapters: tuple[AdapterSource, ...] = ()
    base: Shape | None = None
    adopted: AdoptedFiles | None = None
    against: Source | None = None

    def as_dict(self) -> JsonObject:
        """JSON form, one key per field; what is not there has no key."""
        data = asdict(self)
        del data["base"]
        for key in ("adapters", "adopted", "against"):
            if not data[key]:
                del data[key]
        if self.adopted is not None:
            data["adopted"] = self.adopted.as_arguments()
        if self.against is not None:
            data["against"] = self.against.as_dict()
        return data

    @property
    def reference(self) -> Source | None:
        """Where the unquantized weights come from; None where there are none."""
        return self.against if self.adopted is not None else self


def parse(
    weights: str | None, repo_id: str, revision: str | None = None, offline: bool = False
) -> Source:
    """The source that `--weights` names: `hub` (also when absent), `modelscope`, `dummy`, or the
    path of a folder.

    Raises PackError (exit code 2) for a source that does not exist, or a revision where there are
    none.
    """
    if weights == "modelscope":
        return Source("modelscope", repo_id, revision, repo_id, offline)
    if weights in (None, "hub"):
        return Source("hub", repo_id, revision, repo_id, offline)
    if revision is not None:
        raise usage(
            f"--revision names a commit of the hub, but the weights come from {weights!r}.",
            "Leave one of the two out.",
        )
    if weights == "dummy":
        return Source("dummy", repo_id, None, repo_id, offline)
    assert weights is not None
    folder = expanded(weights).absolute()
    composed.refuse_by_hand(folder)
    described.refuse_by_hand(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise usage(
            f"The weights {weights!r} are neither hub, modelscope nor dummy, and the folder "
            f"{folder} {what}.",
            "Check --weights.",
        )
    return Source("local", str(folder), None, repo_id, offline)


def job(source: Source, shape: Shape) -> tuple[str, JsonObject]:
    """The job that fetches the weights of a variant of that shape, as `module:function` and its
    arguments without `out`."""
    name, arguments = _base_job(source, source.base or shape)
    if not source.adapters:
        return name, arguments
    return "packager.sources.adapters:fetch", {
        "base": {"job": name, "arguments": arguments},
        "adapters": as_arguments(source.adapters),
    }


def _base_job(source: Source, shape: Shape) -> tuple[str, JsonObject]:
    arguments: JsonDict = {"repo_id": source.repo_id, "shape": asdict(shape)}
    if source.adopted is not None:
        other: JsonObject | None = None
        if source.against is not None:
            name, needs = _base_job(source.against, shape)
            other = {"job": name, "arguments": needs}
        return "packager.sources.adopted:fetch", {
            **source.adopted.as_arguments(),
            "kind": source.kind,
            "repo_id": source.repo_id,
            "against": other,
        }
    match source.kind:
        case "dummy":
            return "packager.sources.dummy:fetch", arguments
        case "local":
            return "packager.sources.local:fetch", {**arguments, "folder": source.location}
        case "hub" | "modelscope":
            return f"packager.sources.{source.kind}:fetch", {
                **arguments,
                "revision": source.revision,
                "offline": source.offline,
            }
    raise AssertionError(source.kind)


def cache_key(source: Source, shape: Shape) -> str | None:
    """A text that changes whenever the bytes would; None when only fetching tells (a branch of the
    hub moves)."""
    key = _base_key(source, source.base or shape)
    return f"{key} {stamp(source.adapters)}" if key and source.adapters else key


def _base_key(source: Source, shape: Shape) -> str | None:
    if source.adopted is not None:
        other = _base_key(source.against, shape) if source.against else "nothing"
        own = f"{source.kind} {source.repo_id} {adoption.stamp(source.adopted)}"
        return None if other is None else f"{own} against {other}"
    match source.kind:
        case "dummy":
            from packager.sources.dummy import SEED, WRITER_VERSION

            shape = replace(shape, image_tokens=0, audio_seconds=0)
            # A tokenizer for vectors or scores is another one since the second version of it.
            writer = WRITER_VERSION if shape.task == "generate" else WRITER_VERSION + 1
            return f"dummy {source.repo_id} {asdict(shape)} seed {SEED} writer {writer}"
        case "local":
            from packager.sources import local

            return f"local {source.location} {source.repo_id} {local.stamp(Path(source.location))}"
        case "hub" | "modelscope":
            pinned = source.revision is not None and _COMMIT.fullmatch(source.revision)
            return f"{source.kind} {source.repo_id} {source.revision}" if pinned else None
    raise AssertionError(source.kind)


def bytes_needed(source: Source, shape: Shape) -> int:
    """Disk below the cache that fetching takes; the hub's own cache is checked by its job, which
    knows the sizes."""
    if source.kind == "dummy":
        from packager.sources import dummy

        return dummy.bytes_needed(source.base or shape)
    return 0
