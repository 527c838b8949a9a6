"""The keys of the GGUF: origin, network, tokenizer.

Collected by the gguf package's writer, so names and types are the library's. They equal those of
llama.cpp's own converter but for the few in docs/measurements/gguf-build.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from packager.checkpoint import Checkpoint
from targets.gguf import padding
from targets.gguf.arch.base import Architecture
from targets.gguf.head import TEXT, Head
from targets.gguf.model_card import Card
from targets.gguf.tensors import OutTensor
from targets.gguf.tokenizer import Vocabulary

KeyValues = dict[str, gguf.GGUFValue]

_HUB, _MODELSCOPE = "https://huggingface.co", "https://www.modelscope.cn/models"
_SNAPSHOT = re.compile(
    r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})$"
)
# Folders whose names say nothing: those of a build cache, and hashes.
_MADE_UP = re.compile(r"out|checkpoint|snapshot|model|[0-9a-f]{12,}", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SAMPLING = {
    "top_k": "sampling_top_k",
    "top_p": "sampling_top_p",
    "min_p": "sampling_min_p",
    "temperature": "sampling_temp",
    "repetition_penalty": "sampling_penalty_repeat",
}
"""Key of generation_config.json -> field of gguf.Metadata."""


def collect(
    source: Checkpoint,
    converter: Architecture,
    tensors: list[OutTensor],
    vocabulary: Vocabulary,
    file_type: str,
    origin: Mapping[str, Any] | None = None,
    *,
    template: str | None = None,
    sampling: Mapping[str, float] | None = None,
    head: Head = TEXT,
    card: Card | None = None,
) -> KeyValues:
    """Every key of the file. `file_type` is a member of gguf.LlamaFileType; `template` is the chat
    template, `head` what the decoder ends in, `sampling` stands before what the checkpoint
    recommends, `card` is the checkpoint's model card.

    `origin` knows what a folder may not: `kind` (hub, local, dummy), `repo_id`, `revision` (a full
    commit), `license`, `license_name`. What the model card says stands before it.
    """
    writer = gguf.GGUFWriter(None, converter.gguf_name)
    writer.add_type(gguf.GGUFType.MODEL)
    describe_origin(writer, source, tensors, origin or {}, sampling or {}, card or Card())
    converter.describe(writer)
    _tokenizer(writer, vocabulary, template)
    head.describe(writer)
    writer.add_string(padding.KEY, padding.text(writer.kv_data[0]))
    return close(writer, file_type)


def network(converter: Architecture, file_type: str) -> KeyValues:
    """Only what describes the network: enough for the library to decide the types of the
    tensors."""
    writer = gguf.GGUFWriter(None, converter.gguf_name)
    converter.describe(writer)
    return close(writer, file_type)


def close(writer: gguf.GGUFWriter, file_type: str) -> KeyValues:
    """The collected keys; the two that llama.cpp's quantizer writes come last, as it leaves
    them."""
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    return dict(writer.kv_data[0])


def describe_origin(
    writer: gguf.GGUFWriter,
    source: Checkpoint,
    tensors: list[OutTensor],
    origin: Mapping[str, Any],
    sampling: Mapping[str, float] | None,
    card: Card,
) -> None:
    """`general.*`: name, size, licence and base model from the model card, the configuration, the
    origin, and the folder's name; settings of sampling where `sampling` is not None."""
    total, shared, expert, count = _counts(tensors)
    config, folder = dict(source.config), source.folder
    kind, planned = origin.get("kind"), origin.get("repo_id")
    repository, revision = (
        (planned, origin.get("revision")) if kind in ("hub", "modelscope") else _repository(folder)
    )
    # A path that training left there is no repository, and nobody's business.
    if not _REPOSITORY.fullmatch(str(config.get("_name_or_path", ""))):
        config.pop("_name_or_path", None)
    name: Path | None = folder
    if repository is not None or kind == "dummy":
        config["_name_or_path"], name = repository or planned, None
    elif _MADE_UP.fullmatch(folder.name):
        name = None
    # The heuristic reads no more of the folder than its last name.
    meta: Any = gguf.Metadata.apply_metadata_heuristic(
        gguf.Metadata(), dict(card.entries), config, name, total
    )
    recommended = source.generation_config if sampling is not None else {}
    for key, field in _SAMPLING.items():
        if (value := (sampling or {}).get(key, recommended.get(key))) is not None:
            setattr(meta, field, value)
    if meta.name is None:
        meta.name = (
            f"{source.config.get('model_type')} {gguf.size_label(total, shared, expert, count)}"
        )
    if kind == "dummy":
        meta.name, meta.description = (
            f"{meta.name} (random weights)",
            "Random weights in the true shape: it measures, its answers mean nothing.",
        )
    if meta.license is None and origin.get("license"):
        meta.license, meta.license_name = origin["license"], origin.get("license_name")
    if meta.author is None and repository is not None:
        meta.author = repository.partition("/")[0]
    if (
        kind == "local"
        and repository is None
        and not meta.base_models
        and planned
        and not planned.startswith("local/")
    ):
        owner, _, base = planned.partition("/")
        meta.base_models = [
            {"name": base.replace("-", " "), "organization": owner, "repo_url": f"{_HUB}/{planned}"}
        ]
    if revision is not None and kind != "modelscope":
        meta.source_url = f"{_HUB}/{repository}/tree/{revision}"
    if meta.size_label is None and total > 0:
        meta.size_label = gguf.size_label(total, shared, expert, count)
    repo_id = config.get("_name_or_path")
    if meta.source_repo_url is None and repo_id and kind != "dummy":
        meta.source_repo_url = f"{_MODELSCOPE if kind == 'modelscope' else _HUB}/{repo_id}"
    meta.set_gguf_meta_model(writer)


def _repository(folder: Path) -> tuple[str | None, str | None]:
    """Repo id and full revision of a snapshot in a hub cache."""
    match = _SNAPSHOT.search(folder.resolve().as_posix())
    return (f"{match['owner']}/{match['name']}", match["revision"]) if match else (None, None)


def _counts(tensors: list[OutTensor]) -> tuple[int, int, int, int]:
    """Parameters in all, outside the experts, of one expert, and how many experts: what
    gguf.size_label takes."""
    total = sum(tensor.elements for tensor in tensors)
    stacks = [tensor for tensor in tensors if "_exps." in tensor.name]
    experts = sum(tensor.shape[0] for tensor in stacks) // len(stacks) if stacks else 0
    each = sum(tensor.elements // tensor.shape[0] for tensor in stacks)
    return total, total - sum(tensor.elements for tensor in stacks), each, experts


def _tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary, chat_template: str | None) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for kind, number in vocabulary.special.items():
        if (add_id := getattr(writer, f"add_{kind}_token_id", None)) is not None:
            add_id(number)
    if vocabulary.end_of_turn is not None:
        writer.add_eot_token_id(vocabulary.end_of_turn)
    if vocabulary.end_of_message is not None:
        writer.add_eom_token_id(vocabulary.end_of_message)
    for kind, value in vocabulary.add.items():
        if (add_flag := getattr(writer, f"add_add_{kind}_token", None)) is not None:
            add_flag(value)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
