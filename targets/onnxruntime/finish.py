"""What the model builder leaves is made a package's: the workload's context, the checkpoint's own
tokenizer, no trace of the machine."""

from __future__ import annotations

import json
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.errors import bad_input
from packager.files import write_atomically, write_json
from packager.foreign import bounded_bytes, parse_json
from packager.limits import SETTINGS_BYTES, TEXT_BYTES
from targets.onnxruntime.data import CHUNK

_MODEL_FILES = ("model.onnx", "model.onnx.data")


def finish(built: Path, source: Checkpoint, context: int) -> None:
    """Rewrite genai_config.json and the tokenizer's files in `built`; refuse an artifact that is
    not whole."""
    for name in (*_MODEL_FILES, "genai_config.json"):
        if not (built / name).is_file():
            raise bad_input(
                f"The model builder wrote no {name}.", "Its output is in the log of the build."
            )
    set_context(built / "genai_config.json", context)
    _tokenizer(built, source)


def set_context(path: Path, context: int) -> None:
    """The cache is allocated for `max_length` tokens: the workload's context, not all that the
    model was trained for."""
    config = json.loads(path.read_bytes())
    search = config["search"]
    search["max_length"] = min(context, config["model"]["context_length"])
    search["chunk_size"] = CHUNK
    write_json(path, config)


def _tokenizer(built: Path, source: Checkpoint) -> None:
    """The checkpoint's own files in place of transformers' rewriting of them; tokenizer.json loses
    its white space, 2 to 6 MB."""
    if source.tokenizer_json is not None:
        text = json.dumps(
            parse_json(
                bounded_bytes(source.tokenizer_json, TEXT_BYTES), str(source.tokenizer_json)
            ),
            ensure_ascii=False,
            separators=(",", ":"),
        )
        write_atomically(built / "tokenizer.json", text.encode())
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if name in source.files:
            write_atomically(built / name, bounded_bytes(source.files[name], SETTINGS_BYTES))
    template = built / "chat_template.jinja"
    if source.chat_template is not None:
        write_atomically(template, source.chat_template.encode())
    else:
        template.unlink(missing_ok=True)
