"""What makes an engine do more than compute: the runtime, the file, its bytes, and a word of the
reason for which it is refused."""

from __future__ import annotations

import struct

from tests.support.safe_packages import (
    ENGINE_KEYS,
    LAYER,
    MATMUL,
    PE,
    SIXTEEN,
    field,
    graph,
    net,
    node,
    outside,
    pickled,
    unseen,
    varint,
    zipped,
)
from tests.support.tiny_gguf import text, tiny_gguf

BAD: dict[str, tuple[str, str, bytes, str]] = {
    **{
        f"genai_config {name}": ("onnxruntime", "model/genai_config.json", data, "genai_config")
        for name, data in ENGINE_KEYS.items()
    },
    "an adapter": ("onnxruntime", "model/a.onnx_adapter", b"x", "is not an adapter"),
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
        graph(node("EPContext", "com.microsoft") + varint(4 << 3 | 5) + b"Gelu"),
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
                    field(1, "location") + field(2, "../secret") + varint(2 << 3 | 1) + b"abcd.txt",
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
