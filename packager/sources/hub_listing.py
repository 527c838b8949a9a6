"""What the hub says about one repository at one commit: which files make the checkpoint, how large,
with which digests."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CardData, HfApi, constants
from huggingface_hub.errors import HFValidationError

from packager.checkpoint.folder import belongs, is_pickle, is_weights, refuse_oversize
from packager.errors import PackError, bad_input, unreachable
from packager.limits import FOLDER_NAMES
from packager.sources.hub_client import bound_answers
from packager.sources.hub_errors import WAYS_ON, hub_errors

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: `digest` is the sha256 of its bytes where the hub keeps it in large-file storage,
    else git's blob id (sha1)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a checkpoint at one full commit hash, the licence that the repository declares,
    and what it was made from."""

    commit: str
    license: str | None
    files: tuple[RemoteFile, ...]
    base_models: tuple[str, ...] = ()


def list_checkpoint(repo_id: str, revision: str | None) -> Listing:
    """Resolve a branch, tag or commit (None: the main branch) and list what belongs to the
    checkpoint.

    Raises PackError: exit code 5 when the hub cannot be reached or does not let us in, 6 when there
    are no safetensors.
    """
    info = _info(repo_id, revision)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if not any(is_weights(name) for name in names):
        raise _no_weights(repo_id, names)
    return _listing(repo_id, info, belongs)


def list_files(repo_id: str, revision: str | None, wanted: Callable[[str], bool]) -> Listing:
    """Resolve a branch, tag or commit, and list the files whose names are wanted. Raises PackError
    (exit code 5) as `list_checkpoint`."""
    return _listing(repo_id, _info(repo_id, revision), wanted)


def _info(repo_id: str, revision: str | None) -> Any:
    bound_answers()
    wanted = revision or constants.DEFAULT_REVISION
    with hub_errors(repo_id, revision):
        try:
            # Without a timeout the client waits for ever; ten seconds of silence are its default
            # for downloads.
            info = HfApi().model_info(
                repo_id,
                revision=wanted,
                files_metadata=True,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
        except HFValidationError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise unreachable(
                f"{constants.ENDPOINT} does not answer like a hub.",
                f"Check HF_ENDPOINT and the network. {WAYS_ON}",
            ) from None
    siblings = info.siblings or []
    if len(siblings) > FOLDER_NAMES:
        raise bad_input(
            f"{repo_id} lists {len(siblings)} files.", "Name a repository that holds one model."
        )
    if not all(isinstance(sibling.rfilename, str) for sibling in siblings):
        raise unreachable(
            f"{constants.ENDPOINT} lists files of {repo_id} that have no name.", WAYS_ON
        )
    return info


def _no_weights(repo_id: str, names: list[str]) -> PackError:
    pickles = [name for name in names if is_pickle(name)]
    if pickles:
        return bad_input(
            f"{repo_id} holds its weights as a pickle ({pickles[0]}), which can run any code "
            "when it is loaded.",
            "Name a repository with safetensors files.",
        )
    return bad_input(
        f"{repo_id} holds no safetensors files.",
        "Name the repository with the unquantized weights.",
    )


def _listing(repo_id: str, info: Any, wanted: Callable[[str], bool]) -> Listing:
    files = tuple(
        _file(repo_id, sibling) for sibling in info.siblings or [] if wanted(sibling.rfilename)
    )
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise unreachable(
            f"{constants.ENDPOINT} does not say which commit of {repo_id} it has.", WAYS_ON
        )
    return Listing(info.sha, _license(info), files, _base_models(info))


def _file(repo_id: str, sibling: Any) -> RemoteFile:
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if (
        not isinstance(size, int)
        or size < 0
        or not isinstance(digest, str)
        or not _DIGEST.fullmatch(digest)
    ):
        raise unreachable(
            f"The hub does not give the size and digest of {sibling.rfilename} in {repo_id}, so it "
            "cannot be checked.",
            WAYS_ON,
        )
    own = sibling.rfilename.rpartition("/")[2]
    refuse_oversize(f"{repo_id}: {sibling.rfilename}", own, size)
    return RemoteFile(sibling.rfilename, size, digest)


def _base_models(info: Any) -> tuple[str, ...]:
    """What the model card says that it was made from; a card may name one, several, or none."""
    named = _card(info).get("base_model")
    several = named if isinstance(named, list) else [named]
    tags = [tag.rpartition(":")[2] for tag in _tags(info) if tag.startswith("base_model:")]
    return tuple(name for name in [*several, *tags] if isinstance(name, str))


# Any: YAML from outside; whoever uses a field looks at it first.
def _card(info: Any) -> dict[str, Any]:
    """What the model card says; nothing where it is no table of keys."""
    card = info.card_data
    return dict(vars(card)) if isinstance(card, CardData) else {}


def _tags(info: Any) -> list[str]:
    """The tags of a repository that are texts; a list that is none has none."""
    tags = info.tags if isinstance(info.tags, list) else []
    return [tag for tag in tags if isinstance(tag, str)]


def _license(info: Any) -> str | None:
    """The licence id of the model card; its own name where the card says `other`."""
    card = _card(info)
    declared = card.get("license")
    if declared == "other":
        declared = card.get("license_name") or declared
    if declared is None:
        declared = next(
            (tag.removeprefix("license:") for tag in _tags(info) if tag.startswith("license:")),
            None,
        )
    return declared if isinstance(declared, str) else None
