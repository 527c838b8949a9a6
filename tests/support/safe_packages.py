"""Packages that are safe to open, file by file, and the parts of which unsafe ones are made."""

from __future__ import annotations

import copy
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.shipping_packages import write
from tests.support.tiny_gguf import tiny_gguf

GENAI: dict[str, Any] = {
    "model": {
        "bos_token_id": None,
        "context_length": 2048,
        "decoder": {
            "session_options": {
                "log_id": "onnxruntime-genai",
                "provider_options": [{"cuda": {"enable_cuda_graph": "0"}}],
            },
            "filename": "model.onnx",
            "head_size": 64,
            "hidden_size": 128,
            "inputs": {"input_ids": "input_ids", "past_key_names": "past_key_values.%d.key"},
            "outputs": {"logits": "logits", "present_key_names": "present.%d.key"},
            "num_attention_heads": 4,
        },
        "eos_token_id": [1, 2],
        "type": "qwen3",
        "vocab_size": 4096,
    },
    "search": {"do_sample": True, "max_length": 96, "temperature": 0.7, "chunk_size": 256},
}


def field(number: int, value: bytes | int | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def unseen(number: int, value: bytes) -> bytes:
    """A field whose key has a bit more than 32: protobuf's own readers drop it, and see the
    field."""
    return varint(1 << 32 | number << 3 | 2) + varint(len(value)) + value


def graph(*nodes: bytes, tensors: bytes = b"", more: bytes = b"") -> bytes:
    """An ONNX model of those nodes."""
    body = b"".join(field(1, node) for node in nodes) + tensors
    return field(1, 10) + field(8, field(1, "") + field(2, 21)) + field(7, body) + more


def node(operator: str, domain: str = "", *attributes: bytes) -> bytes:
    return (
        field(4, operator)
        + field(7, domain)
        + b"".join(field(5, attribute) for attribute in attributes)
    )


def outside(**place: str) -> bytes:
    """A tensor whose weights lie in another file."""
    return field(14, 1) + b"".join(
        field(13, field(1, key) + field(2, value)) for key, value in place.items()
    )


MATMUL = node("MatMulNBits", "com.microsoft")
ONNX = graph(
    MATMUL, tensors=field(5, outside(location="model.onnx.data", offset="0", length="100"))
)
LAYER = '<layer id="0" name="x" type="{}" version="{}">{}</layer>'
SIXTEEN = '<data element_type="u8" shape="16" offset="{}" size="{}"/>'


def net(*layers: str, more: str = "") -> bytes:
    return f'<?xml version="1.0"?><net name="m" version="11"><layers>{"".join(layers)}</layers>{more}</net>'.encode()


GOOD: dict[str, dict[str, bytes]] = {
    "onnxruntime": {
        "model/genai_config.json": json.dumps(GENAI).encode(),
        "model/model.onnx": ONNX,
        "model/model.onnx.data": bytes(100),
        "model/tokenizer.json": b'{"version": "1.0", "model": {"vocab": {}, "vocab": {}}}',
        "model/tokenizer_config.json": b'{"chat_template": "{{ messages }}", "anything": {"else": '
        b"[1]}}",
    },
    "openvino": {
        "model/openvino_model.xml": net(
            LAYER.format("Const", "opset1", SIXTEEN.format(0, 16)),
            LAYER.format("Result", "opset1", ""),
        ),
        "model/openvino_model.bin": bytes(16),
        "model/openvino_tokenizer.xml": net(LAYER.format("BPETokenizer", "extension", "")),
        "model/openvino_tokenizer.bin": bytes(16),
        "model/config.json": b'{"model_type": "qwen3"}',
        "model/generation_config.json": b'{"eos_token_id": [1, 2], "temperature": 0.6, '
        b'"pad_token_id": null}',
    },
    "llama.cpp": {"model/model.gguf": tiny_gguf(bytes(4096)), "LICENSE": b"text"},
}


def package(folder: Path, runtime: str, **more: bytes) -> Path:
    """A good package for a runtime, some of its files replaced or added."""
    return write(folder, {**GOOD[runtime], **more}, {"runtime": {"name": runtime, "version": "1"}})


def config(change: Callable[[dict[str, Any]], Any]) -> bytes:
    data = copy.deepcopy(GENAI)
    change(data)
    return json.dumps(data).encode()


def pickled(protocol: int) -> bytes:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    return pickle.dumps({"state": Evil()}, protocol=protocol)


def zipped(before: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickled(2))
    return before + out.getvalue()


PE = b"MZ".ljust(60, b"\0") + struct.pack("<I", 128) + bytes(64) + b"PE\0\0" + bytes(64)
LIBRARY = {"custom_ops_library": "evil.so"}
ENGINE_KEYS: dict[str, bytes] = {
    "in the session options": config(
        lambda c: c["model"]["decoder"]["session_options"].update(LIBRARY)
    ),
    "at the top": config(lambda c: c.update(LIBRARY)),
    "in the model": config(lambda c: c["model"].update(LIBRARY)),
    "in the decoder": config(lambda c: c["model"]["decoder"].update(LIBRARY)),
    "in the search": config(lambda c: c["search"].update(LIBRARY)),
    "in a provider's options": config(
        lambda c: c["model"]["decoder"]["session_options"]["provider_options"][0]["cuda"].update(
            LIBRARY
        )
    ),
    "in another provider": config(
        lambda c: c["model"]["decoder"]["session_options"]["provider_options"].append(
            {"qnn": {"backend_path": "evil.so"}}
        )
    ),
    "in a stage of a pipeline": config(
        lambda c: c["model"]["decoder"].update(
            pipeline=[{"a": {"filename": "model.onnx", "session_options": LIBRARY}}]
        )
    ),
    **{
        f"in the section {name}": config(
            lambda c, name=name: c["model"].update({name: {"session_options": LIBRARY}})
        )
        for name in ("encoder", "vision", "speech", "embedding", "mtp", "encoder_decoder_init")
    },
    "in run options": config(lambda c: c["model"]["decoder"].update(run_options={"x": "y"})),
    "as a session entry": config(
        lambda c: c["model"]["decoder"]["session_options"].update(
            {"session.load_model_format": "ORT"}
        )
    ),
    "as an escaped key": json.dumps(GENAI)
    .replace('"log_id"', '"custom\\u005fops_library"')
    .encode(),
    "as a key twice": json.dumps(GENAI)
    .replace('"log_id": "onnxruntime-genai"', '"log_id": "/x/evil.so", "log_id": "a"')
    .encode(),
    "as a value that is a path": config(
        lambda c: c["model"]["decoder"]["session_options"].update(log_id="../../evil")
    ),
    "as a graph elsewhere": config(
        lambda c: c["model"]["decoder"].update(filename="../model.onnx")
    ),
    "as a graph of another kind": config(
        lambda c: c["model"]["decoder"].update(filename="model.ort")
    ),
    "as a graph that is absent": config(
        lambda c: c["model"]["decoder"].update(filename="other.onnx")
    ),
    "in UTF-16": json.dumps(GENAI).encode("utf-16"),
    "as a list": b"[]",
    "without end": b"[" * 100_000,
}
