"""What of a package the same inputs give again, everywhere and at any time, and the one digest of
it.

The model files, the chat template and the licences of a checkpoint do. When it was built, how long
that took, and the figures of a measurement do not, nor the papers that quote them: they are
evidence of one machine at one time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_INPUTS = ("version", "target", "workload", "variant", "source", "recipe", "runtime")
MODEL_FOLDER = "model/"
TEMPLATE = "chat_template.jinja"
TOOLCHAIN = ("architecture", "ggml compiler", "ggml arithmetic")
"""Names among the manifest's `tools` that are no distributions: what the bytes of quantized weights
depend on beside versions."""
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


def content(path: str) -> bool:
    """Whether a file of a package follows from its inputs alone."""
    return (
        path.startswith(MODEL_FOLDER)
        or path == TEMPLATE
        or ("/" not in path and path.upper().startswith(_LICENCES))
    )


def content_sha256(data: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of what the same inputs give again: the inputs of a manifest and its files
    of `content`, as canonical JSON."""
    files = sorted(
        (row for row in data["files"] if content(row["path"])), key=lambda row: row["path"]
    )
    rows = [{key: row[key] for key in ("path", "size", "sha256")} for row in files]
    # How the engine had to be started is a property of the machine that built it, as a measurement
    # is; which engines read the files follows from them, and from what is known of engines.
    runtime = {
        key: value
        for key, value in (data.get("runtime") or {}).items()
        if key not in ("settings", "minimum")
    }
    body = {key: data.get(key) for key in _INPUTS} | {"runtime": runtime, "files": rows}
    # Which server handed the same bytes over changes nothing of them.
    if isinstance(body["source"], Mapping):
        body["source"] = {key: value for key, value in body["source"].items() if key != "endpoint"}
    if data.get("adapter"):
        body["adapter"] = data["adapter"]
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()
