"""A package is safe to open: what would make an engine load a library or leave its files is
refused, wherever it stands."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.inspection import gguf, native, onnx, refuse_unsafe
from packager.inspection.unsafe import Unsafe
from packager.package import manifest
from packager.package.verify import verify
from packager.pipeline import bench
from packager.shipping.export import export
from packager.shipping.registry import pull, push
from packager.shipping.shipment import prepare
from packager.shipping.unpack import unpack
from tests.conftest import REPOSITORY
from tests.support.oci_registry import real_registry
from tests.support.shipping_packages import AGREED, finish, write
from tests.support.tiny_gguf import text, tiny_gguf

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
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def unseen(number: int, value: bytes) -> bytes:
    """A field whose key has a bit more than 32: protobuf's own readers drop it, and see the
    field."""
    return _varint(1 << 32 | number << 3 | 2) + _varint(len(value)) + value


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

BAD: dict[str, tuple[str, str, bytes, str]] = {
    **{
        f"genai_config {name}": ("onnxruntime", "model/genai_config.json", data, "genai_config")
        for name, data in ENGINE_KEYS.items()
    },
    "an adapter": ("onnxruntime", "model/a.onnx_adapter", b"x", "kind"),
    "a preprocessor": ("onnxruntime", "model/processor_config.json", b"{}", "configuration"),
    "code in config.json": (
        "openvino",
        "model/config.json",
        b'{"auto_map": {"AutoConfig": "a.B"}}',
        "auto_map",
    ),
    "code deep in tokenizer_config.json": (
        "onnxruntime",
        "model/tokenizer_config.json",
        b'{"a": [{"auto_map": 1}]}',
        "auto_map",
    ),
    "code in config.json that an equal key replaces": (
        "openvino",
        "model/config.json",
        b'{"a": {"auto_map": 1}, "a": 1}',
        "auto_map",
    ),
    "code of generation_config.json": (
        "openvino",
        "model/generation_config.json",
        b'{"custom_generate": "a/b"}',
        "custom_generate",
    ),
    "extensions in openvino_config.json": (
        "openvino",
        "model/openvino_config.json",
        b'{"extensions": ["evil.so"]}',
        "extensions",
    ),
    "a text where a number belongs": (
        "openvino",
        "model/generation_config.json",
        b'{"top_k": "/x"}',
        "number",
    ),
    "more in tokenizer.json": (
        "onnxruntime",
        "model/tokenizer.json",
        b'{"library": "evil.so"}',
        "library",
    ),
    "a second genai_config": (
        "onnxruntime",
        "model/more/genai_config.json",
        b"{}",
        "configuration",
    ),
    "operators of a library": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("Evil", "my.domain")),
        "my.domain",
    ),
    "operators of onnxruntime-extensions": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("PyOp", "ai.onnx.contrib")),
        "contrib",
    ),
    "a domain behind a key that readers cut": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("Gelu") + unseen(7, b"my.domain")),
        "not an ONNX",
    ),
    "functions behind a key that readers cut": (
        "onnxruntime",
        "model/model.onnx",
        graph(more=unseen(25, field(1, "f"))),
        "not an ONNX",
    ),
    "an operator covered by a number": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("EPContext", "com.microsoft") + _varint(4 << 3 | 5) + b"Gelu"),
        "not an ONNX",
    ),
    "weights elsewhere covered by a number": (
        "onnxruntime",
        "model/model.onnx",
        graph(
            tensors=field(
                5,
                field(14, 1)
                + field(
                    13,
                    field(1, "location")
                    + field(2, "../secret")
                    + _varint(2 << 3 | 1)
                    + b"abcd.txt",
                ),
            )
        ),
        "not an ONNX",
    ),
    "a compiled context": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("EPContext", "com.microsoft")),
        "EPContext",
    ),
    "operators within a branch": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("If", "", field(6, field(1, node("Evil", "my.domain"))))),
        "my.domain",
    ),
    "a domain that is only imported": (
        "onnxruntime",
        "model/model.onnx",
        graph(more=field(8, field(1, "my.domain"))),
        "my.domain",
    ),
    "functions of its own": (
        "onnxruntime",
        "model/model.onnx",
        graph(more=field(25, field(1, "f"))),
        "functions",
    ),
    "two graphs": ("onnxruntime", "model/model.onnx", graph() + graph(), "not an ONNX"),
    "no graph": ("onnxruntime", "model/model.onnx", b"\xff" * 40, "not an ONNX"),
    **{
        f"weights at {location}": (
            "onnxruntime",
            "model/model.onnx",
            graph(MATMUL, tensors=field(5, outside(location=location))),
            "takes weights from",
        )
        for location in ("../../etc/passwd", "/etc/passwd", "absent.data", "*/_ORT_MEM_ADDR_/*", "")
        if location
    },
    "weights in an attribute elsewhere": (
        "onnxruntime",
        "model/model.onnx",
        graph(node("Constant", "", field(5, outside(location="/etc/passwd")))),
        "takes weights from",
    ),
    "weights beyond the end": (
        "onnxruntime",
        "model/model.onnx",
        graph(
            MATMUL, tensors=field(5, outside(location="model.onnx.data", offset="90", length="11"))
        ),
        "outside of",
    ),
    **{
        f"weights at the place {offset}": (
            "onnxruntime",
            "model/model.onnx",
            graph(tensors=field(5, outside(location="model.onnx.data", offset=offset))),
            "not a number",
        )
        for offset in ("-1", " 1", "1_0", "+1", "0x1", "٣", str(1 << 63), "9" * 30)
    },
    **{
        f"a constant at {offset}": (
            "openvino",
            "model/openvino_model.xml",
            net(LAYER.format("Const", "opset1", SIXTEEN.format(offset, 16))),
            "not a number",
        )
        for offset in ("-16", " 0", "0_0", "0x0", str((1 << 64) - 16))
    },
    "a constant behind another layer": (
        "openvino",
        "model/openvino_model.xml",
        net(
            LAYER.format(
                "Const",
                "opset1",
                f"<x>{LAYER.format('Parameter', 'opset1', '')}</x>{SIXTEEN.format(1 << 40, 16)}",
            )
        ),
        "outside of its weights",
    ),
    "a place in the weights of any operation": (
        "openvino",
        "model/openvino_model.xml",
        net(LAYER.format("Add", "opset1", SIXTEEN.format(1 << 40, 16))),
        "outside of its weights",
    ),
    "an operation of a library": (
        "openvino",
        "model/openvino_model.xml",
        net(LAYER.format("Evil", "extension", "")),
        "Evil",
    ),
    "an operation of another set": (
        "openvino",
        "model/openvino_model.xml",
        net(LAYER.format("Evil", "evil", "")),
        "evil",
    ),
    "an operation within a loop": (
        "openvino",
        "model/openvino_model.xml",
        net(
            LAYER.format(
                "Loop", "opset5", f"<body><layers>{LAYER.format('E', 'evil', '')}</layers></body>"
            )
        ),
        "evil",
    ),
    "a constant beyond the end": (
        "openvino",
        "model/openvino_model.xml",
        net(LAYER.format("Const", "opset1", SIXTEEN.format(8, 9))),
        "outside",
    ),
    "kernels of its own": (
        "openvino",
        "model/openvino_model.xml",
        net(
            more="<rt_info><runtime_options><CONFIG_FILE "
            'value="evil.xml"/></runtime_options></rt_info>'
        ),
        "CONFIG_FILE",
    ),
    "entities": (
        "openvino",
        "model/openvino_model.xml",
        b'<!DOCTYPE net [<!ENTITY a "b">]><net/>',
        "document type",
    ),
    "an XML of another kind": (
        "openvino",
        "model/kernels.xml",
        b"<CustomLayer/>",
        "not an OpenVINO graph",
    ),
    "no XML": ("openvino", "model/openvino_model.xml", b"\0\1", "not valid XML"),
    "an unknown type": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), kind=33),
        "unknown type (33)",
    ),
    "an offset beyond the end": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), offset=32),
        "outside",
    ),
    "an odd offset": ("llama.cpp", "model/model.gguf", tiny_gguf(bytes(64), offset=1), "outside"),
    "more elements than bytes": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), elements=65),
        "outside",
    ),
    "elements past counting": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), elements=1 << 63),
        "impossible",
    ),
    "a row that no block divides": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), kind=2, elements=33),
        "impossible",
    ),
    "a value of an unknown kind": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), keys=text("k") + struct.pack("<I", 99), pairs=1),
        "kind (99)",
    ),
    "a list longer than the file": (
        "llama.cpp",
        "model/model.gguf",
        tiny_gguf(bytes(64), keys=text("k") + struct.pack("<IIQ", 9, 8, 1 << 60), pairs=1),
        "ends within",
    ),
    "keys past counting": (
        "llama.cpp",
        "model/model.gguf",
        struct.pack("<4sIQQ", b"GGUF", 3, 1 << 62, 1),
        "claims",
    ),
    "another file as a GGUF": ("llama.cpp", "model/model.gguf", b"no header", "not a GGUF"),
    "an empty GGUF": ("llama.cpp", "model/model.gguf", b"", "empty"),
    **{
        f"a file {name}": ("llama.cpp", name, b"text", "by its name")
        for name in (
            *(
                "model/evil.so",
                "evil.so.1.2",
                "EVIL.DLL",
                "papers/evil.dylib",
                "model/evil.pyd",
                "setup.py",
                "a/__init__.pyc",
            ),
            *(
                "model/weights.pt",
                "model/weights.pkl",
                "model/weights.ckpt",
                "evil.pth",
                "run.sh",
                "model/m.ort",
            ),
        )
    },
    "a library under another name": (
        "llama.cpp",
        "papers/notes.txt",
        b"\x7fELF" + bytes(60),
        "ELF",
    ),
    "a state of llama.cpp": (
        "llama.cpp",
        "papers/notes.txt",
        b"qsgg" + bytes(60),
        "reads as its own memory",
    ),
    "a library as weights": ("openvino", "model/openvino_model.bin", b"\x7fELF" + bytes(60), "ELF"),
    "a Windows library under another name": ("llama.cpp", "papers/notes.txt", PE, "PE"),
    "a Mach-O under another name": (
        "llama.cpp",
        "papers/notes.txt",
        b"\xcf\xfa\xed\xfe" + bytes(60),
        "Mach-O",
    ),
    "a script under another name": (
        "llama.cpp",
        "papers/notes.txt",
        b"#!/bin/sh\nrm -r x\n",
        "script",
    ),
    "zipped weights": ("openvino", "model/openvino_model.bin", zipped(), "zip"),
    "zipped weights behind others": (
        "openvino",
        "model/openvino_model.bin",
        zipped(bytes(500)),
        "zip",
    ),
    **{
        f"a pickle of protocol {protocol}": (
            "openvino",
            "model/openvino_model.bin",
            pickled(protocol),
            "pickle",
        )
        for protocol in range(6)
    },
}


def refused(work: Callable[[], Any], *words: str) -> None:
    with pytest.raises(PackError) as caught:
        work()
    assert caught.value.exit_code == ExitCode.INPUT
    assert all(word in str(caught.value) for word in ("not safe to open", *words)), str(
        caught.value
    )


@pytest.mark.parametrize("runtime", GOOD)
def test_what_our_builders_write_is_safe(runtime: str, tmp_path: Path) -> None:
    folder = package(tmp_path / "p", runtime)
    refuse_unsafe(folder, manifest.read(folder))
    assert verify(folder) == []


@pytest.mark.parametrize("case", BAD)
def test_what_makes_an_engine_do_more_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    runtime, name, data, word = BAD[case]
    folder = package(tmp_path / "p", runtime, **{name: data})
    assert verify(folder) == []  # its content is what its manifest says, whoever wrote that
    refused(lambda: refuse_unsafe(folder, manifest.read(folder)), word)


EVIL = ("onnxruntime", "model/genai_config.json", ENGINE_KEYS["in the session options"])


class Runtime:
    """As much of an adapter as is asked before the package is."""

    name = "onnxruntime"
    distributions = ("numpy",)
    extra = ""
    more_tools = ()


def test_no_engine_opens_an_unsafe_package_and_it_neither_leaves_nor_comes_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, name, data = EVIL
    folder = package(tmp_path / "evil", runtime, **{name: data})
    refused(lambda: prepare(folder, allow_dummy=True), "custom_ops_library")
    refused(
        lambda: finish(export(folder, "zip", tmp_path / "x.zip", **AGREED)), "custom_ops_library"
    )
    refused(lambda: bench.whole(folder, Runtime()), "custom_ops_library")  # type: ignore[arg-type]
    for words in (
        ["run", str(folder), "x"],
        ["bench", str(folder)],
        ["behave", str(folder)],
        ["compare", str(folder), str(folder)],
    ):
        code = main(words)
        error = capsys.readouterr().err
        assert code == ExitCode.INPUT and "custom_ops_library" in error, (words, error)


def test_every_module_that_hands_a_packages_model_to_an_engine_has_looked_at_it_first() -> None:
    """`whole` and `intact` compare the bytes, and refuse what is not safe to open."""
    seen = set()
    for path in sorted((REPOSITORY / "packager").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        opens = any(
            isinstance(node, ast.BinOp) and ast.unparse(node) == "package / MODEL"
            for node in ast.walk(tree)
        )
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if opens:
            seen.add(path.name)
            assert {"bench.whole", "whole", "intact"} & called, path
    assert seen >= {"bench.py", "on_device.py", "retrieval.py", "run.py", "trial.py"}


def test_verify_says_that_content_is_not_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, name, data = EVIL
    evil, good = (
        package(tmp_path / "evil", runtime, **{name: data}),
        package(tmp_path / "good", runtime),
    )
    assert main(["verify", str(evil), "--json"]) == ExitCode.DONE
    assert "custom_ops_library" in json.loads(capsys.readouterr().out)["unsafe"]
    assert main(["verify", str(good), "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["unsafe"] is None


def test_an_unsafe_package_is_not_unpacked_and_leaves_nothing(tmp_path: Path) -> None:
    runtime, name, data = EVIL
    folder = package(tmp_path / "evil", runtime, **{name: data})
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in ["manifest.json", *(entry.path for entry in manifest.read(folder).files)]:
            file.write(folder / path, f"evil/{path}")
    refused(lambda: finish(unpack(archive, tmp_path / "out")), "custom_ops_library", "evil.zip")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_an_unsafe_package_is_neither_pulled_nor_made_by_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packager.shipping import delta, patch, shipment

    runtime, name, data = EVIL
    good, evil = (
        package(tmp_path / "good", runtime),
        package(tmp_path / "evil", runtime, **{name: data}),
    )
    store = tmp_path / "registry"
    store.mkdir()
    with real_registry(store) as host:
        with monkeypatch.context() as careless:
            # Whoever pushes it has another tool.
            careless.setattr(shipment, "refuse_unsafe", lambda *_: None)
            finish(push(evil, f"{host}/evil:v1", **AGREED))
            finish(delta.write_patch(good, evil, tmp_path / "evil.patch", **AGREED))
        refused(
            lambda: finish(pull(f"{host}/evil:v1", tmp_path / "out")), "custom_ops_library", host
        )
    refused(
        lambda: finish(patch.apply(tmp_path / "evil.patch", good, tmp_path / "out")),
        "custom_ops_library",
    )
    assert not (tmp_path / "out").exists()


def test_names_within_files_are_shown_without_effect(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "p",
        "onnxruntime",
        **{"model/genai_config.json": json.dumps({"\x1b[2J\u202e": 1}).encode()},
    )
    with pytest.raises(PackError) as caught:
        refuse_unsafe(folder, manifest.read(folder))
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "llama.cpp")
    shutil.move(folder / "model/model.gguf", tmp_path / "elsewhere.gguf")
    (folder / "model/model.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    with pytest.raises((PackError, OSError)):
        refuse_unsafe(folder, manifest.read(folder))


def test_a_pipe_or_a_folder_in_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "llama.cpp")
    for other in (
        lambda: os.mkfifo(folder / "model/model.gguf"),
        (folder / "model/model.gguf").mkdir,
    ):
        (folder / "model/model.gguf").unlink()
        other()
        refused(
            lambda: refuse_unsafe(folder, manifest.read(folder)), "a pipe, a folder or a device"
        )


def test_a_package_of_a_runtime_that_we_do_not_know_may_hold_other_kinds_but_no_programs(
    tmp_path: Path,
) -> None:
    other = {"runtime": {"name": "other", "version": "1"}}
    fine = write(
        tmp_path / "fine", {"model/weights.xyz": b"x", "model/settings.json": b"{}"}, other
    )
    refuse_unsafe(fine, manifest.read(fine))
    evil = write(tmp_path / "evil", {"model/weights.xyz": b"\x7fELF" + bytes(60)}, other)
    refused(lambda: refuse_unsafe(evil, manifest.read(evil)), "ELF")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_headers_end_in_a_reason_and_nothing_else(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [tiny_gguf(bytes(64), keys=text("k") + struct.pack("<II", 4, 7), pairs=1), ONNX]
        )
    )
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for look in (
        lambda: gguf.refuse(cut, len(cut)),
        lambda: onnx.refuse(memoryview(cut), {"model.onnx.data": 100}),
    ):
        with contextlib.suppress(Unsafe):
            look()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_raw_weights_are_no_program_whatever_their_first_bytes(weights: bytes) -> None:
    for head in (b"\x80\x02", b"MZ", b"#!", b"PK", b""):
        data = head + b"\xff" + weights
        try:
            native.refuse_bytes(io.BytesIO(data), len(data))
        except Unsafe:
            # By chance, one file in a million millions is what an unpickler would carry out.
            assert list(pickletools.genops(data))[-1][0].name == "STOP"
