"""Changes to folders of OpenVINO and of onnxruntime-genai that an adoption has to refuse, or an
attestation has to name."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from packager.checkpoint.folder import read_json
from tests.support.damage import edit_json


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return change


def edited(name: str, **keys: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **keys)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        moved = folder.with_name("elsewhere")
        (folder / name).rename(moved)
        (folder / name).symlink_to(moved)

    return change


def every(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def beyond(folder: Path) -> None:
    """A tokenizer of a larger vocabulary."""
    definition: dict[str, Any] = dict(read_json(folder / "tokenizer.json"))
    definition["model"]["vocab"]["larger"] = 151_643
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")


TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def template(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text, "utf-8")


XML = "openvino_model.xml"
MATMUL = 'type="MatMul" version="opset1"'
OPENVINO: list[tuple[str, Callable[[Path], object]]] = [
    ("needs an extra library", replaced(XML, MATMUL, 'type="Mine" version="extension"')),
    ("needs an extra library", replaced(XML, MATMUL, 'type="MatMul" version="mine"')),
    ("outside of its weights", cut("openvino_model.bin", 0.5)),
    ("is not valid XML", cut(XML, 0.5)),
    ("declares a document type", replaced(XML, "<net ", '<!DOCTYPE a SYSTEM "/etc/passwd"><net ')),
    ("within one another", replaced(XML, "<layers>", "<a>" * 70 + "</a>" * 70 + "<layers>")),
    ("asks its device for", replaced(XML, "<runtime_options>", "<runtime_options><CACHE_DIR/>")),
    ("keeps no cache in its states", replaced(XML, 'name="beam_idx"', 'name="beams"')),
    ("a cache of 4 layers", edited("config.json", num_hidden_layers=5)),
    ("does not hold the decoder", edited("config.json", intermediate_size=1024)),
    ("describes it|a llama|is not", edited("config.json", model_type="llama")),
    ("names code", edited("config.json", auto_map={"AutoModel": "x.Y"})),
    ("has the key", edited("generation_config.json", custom_generate="me/mine")),
    ("has no openvino_tokenizer.xml", without("openvino_tokenizer.xml")),
    ("has no tokenizer.json", without("tokenizer.json")),
    ("embedding has only 2048 rows", beyond),
    ("link out of its folder", linked("openvino_model.bin")),
    (r"writes '<\|start\|>', which is not a token", template(TEMPLATE)),
    (r"ends a turn with '<\|im_end\|>'", edited("generation_config.json", eos_token_id=2022)),
    ("cannot be rendered", template("{{ ''.__class__.__mro__ }}{% for m in messages %}")),
]  # fmt: skip


def graph(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """A change of model.onnx, its weights left where they are."""

    def done(folder: Path) -> None:
        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        change(model)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return done


def place(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        weights = next(row for row in model.graph.initializer if row.name.endswith("weight_Q4"))
        next(row for row in weights.external_data if row.key == key).value = value

    return change


def first_row(model: Any, size: int) -> None:
    next(row for row in model.graph.initializer if row.name.endswith("weight_Q4")).dims[0] = size


def of_domain(domain: str, operator: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        node = next(row for row in model.graph.node if row.op_type == "MatMulNBits")
        node.domain, node.op_type = domain, operator

    return change


def attribute(model: Any, name: str, value: int) -> None:
    """Another value of an attribute of the first product in blocks."""
    node = next(row for row in model.graph.node if row.op_type == "MatMulNBits")
    next(row for row in node.attribute if row.name == name).i = value


def renamed(old: str, new: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (row,) = (row for row in model.graph.initializer if old in row.name)
        row.name = row.name.replace(old, new)

    return change


def genai(**keys: Any) -> Callable[[Path], None]:
    """A change of genai_config.json's model."""

    def change(folder: Path) -> None:
        config: dict[str, Any] = dict(read_json(folder / "genai_config.json"))
        decoder = keys.get("decoder", {})
        config["model"] |= {key: value for key, value in keys.items() if key != "decoder"}
        config["model"]["decoder"] |= decoder
        (folder / "genai_config.json").write_text(json.dumps(config), "utf-8")

    return change


ONNX: list[tuple[str, Callable[[Path], object]]] = [
    ("takes weights from '../secret'", graph(place("location", "../secret"))),
    ("takes weights from '/etc/passwd'", graph(place("location", "/etc/passwd"))),
    ("takes weights from outside of", graph(place("offset", "999999999"))),
    ("takes weights from outside of", cut("model.onnx.data", 0.5)),
    ("is not an ONNX graph", cut("model.onnx", 0.5)),
    ("bytes instead of", graph(lambda model: first_row(model, 1 << 40))),
    ("bytes instead of", graph(place("length", "16"))),
    ("needs an extra library", graph(of_domain("com.mine", "Run"))),
    ("which no package of qwen-pack has", graph(of_domain("com.microsoft", "Tokenizer"))),
    ("defines functions", graph(lambda model: model.functions.add(name="f"))),
    ("is not allowed", genai(decoder={"session_options": {"custom_ops_library": "x.so"}})),
    ("where a file of the package", genai(decoder={"filename": "../model.onnx"})),
    ("describes a 'llama'", genai(type="llama")),
    ("as num_hidden_layers, where", genai(decoder={"num_hidden_layers": 1 << 40})),
    ("layer 4 has 0 weights", genai(decoder={"num_hidden_layers": 5})),
    ("its output has 524288 weights instead of", genai(vocab_size=4096)),
    ("has no model.onnx.data", without("model.onnx.data")),
    ("embedding has only 2048 rows", beyond),
    ("ends a turn with", genai(eos_token_id=[2022])),
]  # fmt: skip


def overwritten(folder: Path, out: Path, engine: str) -> Path:
    """The folder, whose layers have 4 bits, with the first layer's matrix of the second."""
    stored: Any = importlib.import_module(f"targets.{engine}.stored")
    copy = shutil.copytree(folder, out)
    graph, weights = {
        "openvino": ("openvino_model.xml", "openvino_model.bin"),
        "onnxruntime": ("model.onnx", "model.onnx.data"),
    }[engine]
    rows = {
        getattr(row, "name", None) or row.parts[0]: row for row in stored.weights_of(copy / graph)
    }
    up = [rows[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1)]
    first, second = (row.data.offset for row in up)
    size = up[0].rows * up[0].columns // 2
    data = bytearray((copy / weights).read_bytes())
    data[first : first + size] = data[second : second + size]
    (copy / weights).write_bytes(bytes(data))
    return copy


SCALE = 'element_type="f16" shape="2048, 1" offset='


def without_scales(folder: Path) -> None:
    """A graph whose embedding has a constant of nothing for its scales."""
    pattern = re.escape(SCALE) + r'"(\d+)" size="\d+"'
    nothing = SCALE.replace("2048, 1", "2048, 0") + r'"\1" size="0"'
    text, count = re.subn(pattern, nothing, (folder / XML).read_text(encoding="utf-8"), count=1)
    assert count
    (folder / XML).write_text(text, encoding="utf-8")


NOT_COMPARED: dict[str, list[tuple[str, Callable[[Path], object]]]] = {
    "openvino": [
        ("names no tensor that is 'model.layers.0.mlp.up_proj", every(XML, "0.mlp.up_proj", "0.x")),
        ("has a tensor 'model.layers.9", every(XML, "layers.0.mlp.up", "layers.9.mlp.up")),
        ("bytes|outside", replaced(XML, SCALE, SCALE.replace("2048, 1", "1024, 1"))),
        ("has 0 scales", without_scales),
    ],
    "onnxruntime": [
        ("blocks of .* not as many", graph(lambda model: attribute(model, "block_size", 64))),
        ("names no tensor that is 'model.norm", graph(renamed("final_norm", "last_norm"))),
        ("bytes of weights for", graph(lambda model: attribute(model, "bits", 3))),
    ],
}  # fmt: skip
