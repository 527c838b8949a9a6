"""The kinds of input that are parts of packages and of what goes into them: graphs, configurations of
engines, signatures, profiles."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from tests.attack import mutate
from tests.attack.kind import Kind, Wrong
from tests.attack.packages import OLD, write_files

_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "of a place",
                "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
            },
        }
    ]
).encode()
_PROMPT = b'You are a lamp.\nSay "on" or "off".'
_BESIDE = {"model.onnx": 100, "model.onnx.data": 100}


def _refused(look: Callable[[], None]) -> None:
    """Let an inspection's own refusal be one of a package."""
    from packager.errors import bad_input
    from packager.inspection.unsafe import Unsafe

    try:
        look()
    except Unsafe as reason:
        raise bad_input(str(reason)) from None


def _good(runtime: str, name: str) -> Callable[[Path], bytes]:
    def seed(folder: Path) -> bytes:
        from tests.support.safe_packages import GOOD

        return GOOD[runtime][f"model/{name}"]

    return seed


def _read_gguf(folder: Path, data: bytes) -> None:
    from packager.inspection import gguf

    _refused(lambda: gguf.refuse(data, len(data)))  # type: ignore[arg-type]


def _read_onnx(folder: Path, data: bytes) -> None:
    from packager.inspection import onnx

    _refused(lambda: onnx.refuse(memoryview(data), _BESIDE))


def _read_openvino(folder: Path, data: bytes) -> None:
    from packager.inspection import openvino

    _refused(lambda: openvino.refuse(io.BytesIO(data), 16))


def _configuration(name: str, beside: Collection[str]) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        from packager.inspection import json_file

        _refused(lambda: json_file.refuse(name, data, beside))

    return read


def _seed_signature(folder: Path) -> bytes:
    from packager.shipping import keys
    from packager.shipping.signature import Signer, sign

    (folder / "package").mkdir(mode=0o755)
    write_files(folder / "package", OLD)
    pair = keys.new(folder / "team.key")
    return sign(folder / "package", Signer(pair.private), folder / "p.sig").read_bytes()


def _read_signature(folder: Path, data: bytes) -> None:
    """Only what says the same as the genuine one may hold."""
    from packager.errors import bad_input
    from packager.shipping.signature import Trust, check

    (folder / "p.sig").write_bytes(data)
    if check(folder / "package", folder / "p.sig", Trust(folder / "team.key.pub")):
        raise bad_input("It does not hold.")
    try:
        said = _statement(data)
    except (ValueError, KeyError, TypeError):
        raise Wrong("what is no signature holds") from None
    if said != _statement((folder / "genuine.sig").read_bytes()):
        raise Wrong("a signature of something else holds")


def _statement(signature: bytes) -> bytes:
    """What is signed; as the library, signs that are none of base64 are passed over."""
    return base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"])


def _seeded_signature(folder: Path) -> bytes:
    data = _seed_signature(folder)
    (folder / "genuine.sig").write_bytes(data)
    return data


def _profile(flag: str) -> Callable[[Path, bytes], Any]:
    def read(folder: Path, data: bytes) -> None:
        from packager.chat.profile_files import parse
        from packager.chat.templates import portable
        from packager.checkpoint.template import render

        (folder / "file").write_bytes(data)
        files = {"system_prompt": None, "tools": None, flag: folder / "file"}
        profile = parse(None, files["system_prompt"], files["tools"], None)
        template = portable({"default": "{{ messages }}"}, {}, profile.statements()) or ""
        json.dumps(profile.as_dict(), ensure_ascii=False, allow_nan=False).encode()
        render(template, [])

    return read


_TEMPLATE = (
    "{%- if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
_REQUEST = json.dumps(
    {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "weather", "arguments": '{"place": "x"}'}}],
            },
            {"role": "tool", "content": "warm"},
        ],
        "tools": json.loads(_TOOLS),
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "chat_template_kwargs": {"enable_thinking": False},
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()


def _read_request(folder: Path, data: bytes) -> None:
    """What a server that was exported with a package is asked."""
    from packager.errors import bad_input
    from packager.shipping.server import requests
    from packager.shipping.server.refused import Refused
    from packager.shipping.server.settings import Settings

    known = Settings("x", "x", Path(), _TEMPLATE, 100, "f16", "CPU", frozenset(), (), {}, None)
    try:
        asked = requests.parse(data, known)
    except Refused as reason:
        raise bad_input(str(reason)) from None
    # As it goes to the engine, and back in an answer.
    (asked.prompt + "".join(asked.stops) + json.dumps(asked.tools)).encode()


PARTS: tuple[Kind, ...] = (
    Kind("model.gguf of a package", _good("llama.cpp", "model.gguf"), mutate.of_bytes, _read_gguf),
    Kind(
        "model.onnx of a package", _good("onnxruntime", "model.onnx"), mutate.of_bytes, _read_onnx
    ),
    Kind(
        "openvino_model.xml of a package",
        _good("openvino", "openvino_model.xml"),
        mutate.of_text,
        _read_openvino,
    ),
    Kind(
        "genai_config.json of a package",
        _good("onnxruntime", "genai_config.json"),
        mutate.of_json,
        _configuration("genai_config", _BESIDE),
    ),
    Kind("signature", _seeded_signature, mutate.of_json, _read_signature, 20),
    Kind("request to a server", lambda folder: _REQUEST, mutate.of_json, _read_request),
    Kind("system prompt", lambda folder: _PROMPT, mutate.of_text, _profile("system_prompt"), 3),
    Kind("tools of a profile", lambda folder: _TOOLS, mutate.of_json, _profile("tools"), 3),
)
"""What packages are made of, and what a user lays into them."""
