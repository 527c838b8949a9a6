"""What the model builder leaves is made a package's: the workload's context, the checkpoint's own
tokenizer, no trace of the machine."""

from __future__ import annotations

import json
from pathlib import Path

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint import Checkpoint, retrieval_file
from packager.checkpoint.added_tokens import completed
from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.files import write_atomically, write_json
from packager.foreign import bounded_bytes
from packager.limits import SETTINGS_BYTES
from targets.onnxruntime.data import CHUNK

_SEARCH = ("temperature", "top_k", "top_p", "repetition_penalty")
_GREEDY = ("temperature", 0)
_MODEL_FILES = ("model.onnx", "model.onnx.data")


def finish(built: Path, source: Checkpoint, context: int, profile: Profile | None = None) -> None:
    """Rewrite genai_config.json and the tokenizer's files in `built`; refuse an artifact that is
    not whole."""
    for name in (*_MODEL_FILES, "genai_config.json"):
        if not (built / name).is_file():
            raise bad_input(
                f"The model builder wrote no {name}.", "Its output is in the log of the build."
            )
    wished = profile or Profile()
    spoken = speech.of_folder(source.folder, wished)
    set_context(built / "genai_config.json", context)
    _set_chat(built / "genai_config.json", spoken.ends, wished)
    _tokenizer(built, source, spoken.template)


def for_retrieval(built: Path, source: Checkpoint, head: retrieval_file.Head) -> None:
    """Leave in `built` what an embedder or a reranker needs: graph, tokenizer, and how its results
    are made; the configuration of onnxruntime-genai, which runs neither, goes."""
    for name in _MODEL_FILES:
        if not (built / name).is_file():
            raise bad_input(
                f"The model builder wrote no {name}.", "Its output is in the log of the build."
            )
    for path in built.iterdir():
        if path.name not in _MODEL_FILES:
            path.unlink()
    _tokenizer(built, source, None)
    retrieval_file.write(head, built)


def set_context(path: Path, context: int) -> None:
    """The cache is allocated for `max_length` tokens: the workload's context, not all that the
    model was trained for."""
    config = json.loads(path.read_bytes())
    search = config["search"]
    search["max_length"] = min(context, config["model"]["context_length"])
    search["chunk_size"] = CHUNK
    write_json(path, config)


def _set_chat(path: Path, ends: tuple[int, ...], profile: Profile) -> None:
    """Every end of turn, and the profile's sampling; nothing is written that stands there
    already."""
    config = json.loads(path.read_bytes())
    model, search = config["model"], config["search"]
    declared = model.get("eos_token_id")
    if set(declared if isinstance(declared, list) else [declared]) != set(ends):
        model["eos_token_id"] = ends[0] if len(ends) == 1 else list(ends)
    if not 0 <= (model.get("pad_token_id") or 0) < model["vocab_size"]:
        # A vocabulary that was cut leaves it behind.
        model["pad_token_id"] = ends[0]
    known = {key: value for key, value in profile.sampling.items() if key in _SEARCH}
    if profile.sampling:
        # At temperature 0 the most likely token is taken, which the engine calls no sampling.
        search["do_sample"] = profile.sampling.get("temperature") != 0
        search.update({key: value for key, value in known.items() if (key, value) != _GREEDY})
    write_json(path, config)


def _tokenizer(built: Path, source: Checkpoint, chat: str | None) -> None:
    """The checkpoint's own files in place of transformers' rewriting of them; tokenizer.json loses
    its white space, 2 to 6 MB."""
    if source.tokenizer_json is not None:
        definition = completed(read_json(source.tokenizer_json), source.tokenizer_config)
        text = json.dumps(definition, ensure_ascii=False, separators=(",", ":"))
        write_atomically(built / "tokenizer.json", text.encode())
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if name in source.files:
            write_atomically(built / name, bounded_bytes(source.files[name], SETTINGS_BYTES))
    if source.tokenizer_config.get("chat_template") not in (None, chat):
        # The engine reads no list of templates, and the file beside it says the same to all of
        # them.
        rest = {
            key: value for key, value in source.tokenizer_config.items() if key != "chat_template"
        }
        write_json(built / "tokenizer_config.json", rest)
    template = built / "chat_template.jinja"
    if chat is not None:
        write_atomically(template, chat.encode())
    else:
        template.unlink(missing_ok=True)
