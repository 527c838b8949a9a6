"""Tiny checkpoints with image encoders of the true classes, as transformers makes them, and as the
two GGUF files of a package: written with gguf-py alone, by the names that llama.cpp's own converter
gives (conversion/qwenvl.py and qwen3vl.py of the pinned version)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from targets.gguf.convert import convert
from tests.support.make_checkpoint import tiny_shape, write_tiny

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
"""Those whose files are written here; tests.support.tiny_omni makes one more."""

TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
"""Writes pictures as the published templates do."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HIDDEN, _TOWER = 128, 64


@dataclass(frozen=True)
class Tiny:
    """`model` is transformers'; `artifact` holds both files; `factor` is the side of an image token
    in pixels."""

    family: str
    model: Any
    artifact: Path
    factor: int
    image_id: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def tower(self) -> Any:
        return self.model.model.visual

    def kinds(self, ids: Any) -> dict[str, Any]:
        """What transformers wants to know of each token."""
        return {"mm_token_type_ids": (ids == self.image_id).int()}

    @property
    def patch(self) -> int:
        return self.factor // 2

    def pixel_values(self, rgb: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """What transformers' processor makes of a picture (height, width, 3) of fitting size:
        patches and the grid; written out here because its fast classes take torchvision."""
        import torch

        height, width, _ = rgb.shape
        rows, columns = height // self.patch, width // self.patch
        values = (rgb.astype(np.float32) / 255 - self.mean) / self.std
        values = np.stack([values.transpose(2, 0, 1)] * 2)
        values = values.reshape(
            1, 2, 3, rows // 2, 2, self.patch, columns // 2, 2, self.patch
        ).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
        flat = values.reshape(rows * columns, 3 * 2 * self.patch**2)
        grid = torch.tensor([[1, rows, columns]])
        return torch.tensor(flat, dtype=torch.float32), grid

    def embeddings(self, rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(tokens, width x (1 + deep)) of a picture, as transformers computes them."""
        import torch

        pixels, grid = self.pixel_values(rgb)
        with torch.no_grad():
            out = self.tower(pixels, grid_thw=grid)
        parts = [out.pooler_output, *(getattr(out, "deepstack_features", None) or [])]
        return torch.cat(parts, -1).numpy()

    def answer(self, ids: list[int], rgb: np.ndarray[Any, Any], count: int) -> list[int]:
        """Greedy tokens behind a prompt with one picture in it, each from the whole text anew."""
        import torch

        pixels, grid = self.pixel_values(rgb)
        said: list[int] = []
        for _ in range(count):
            whole = torch.tensor([ids + said])
            with torch.no_grad():
                logits = self.model(
                    input_ids=whole,
                    attention_mask=torch.ones_like(whole),
                    pixel_values=pixels,
                    image_grid_thw=grid,
                    use_cache=False,
                    **self.kinds(whole),
                ).logits
            said.append(int(logits[0, -1].argmax()))
        return said


def tiny(family: str, folder: Path, kind: str = "f16") -> Tiny:
    """A model of that family with random weights; the tower is stored as `kind`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _text_checkpoint(family, folder / "text")
    model = _model(family, text)
    artifact = folder / "out"
    artifact.mkdir()
    _write_text(family, text, artifact / "model.gguf")
    three = family.startswith("qwen3")
    mean, std = ((0.5,) * 3, (0.5,) * 3) if three else (CLIP_MEAN, CLIP_STD)
    write_projector(model, family, artifact / "mmproj.gguf", mean, std, kind)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    ids = special_tokens(text)
    return Tiny(family, model, artifact, 32 if three else 28, ids["<|image_pad|>"], mean, std)


def special_tokens(text: Path) -> dict[str, int]:
    import json

    rows = json.loads((text / "tokenizer.json").read_text())["added_tokens"]
    return {row["content"]: row["id"] for row in rows}


def _text_checkpoint(family: str, folder: Path) -> Path:
    """Decoders that listen: with the weights of a new model each would repeat its last token."""
    from safetensors.torch import load_file, save_file

    shape = _text_shape(family)
    write_tiny(folder, shape=shape, dtype="BF16", seed=3)
    weights = load_file(folder / "model.safetensors")
    louder = {
        name: weight * 4 if weight.ndim == 2 and ".layers." in name else weight
        for name, weight in weights.items()
    }
    save_file(louder, folder / "model.safetensors", {"format": "pt"})
    return folder


def _text_shape(family: str) -> Any:
    from tests.support.gguf_checkpoints import SHAPES

    if family == "qwen3_5":
        return SHAPES["qwen3_5_text"]
    kind = "qwen3" if family == "qwen3_vl" else "qwen2"
    more = {"head_dim": 64} if kind == "qwen3" else {}
    return tiny_shape(
        kind, layers=3, hidden=_HIDDEN, heads=2, kv_heads=1, intermediate=256, tied=False, **more
    )


def _model(family: str, text: Path) -> Any:
    """transformers' model with the text weights of a checkpoint and a random tower."""
    import json

    import torch
    import transformers
    from safetensors.torch import load_file

    given = json.loads((text / "config.json").read_text())
    own = {
        key: value
        for key, value in given.items()
        if key not in ("architectures", "model_type", "transformers_version", "torch_dtype")
    }
    section = [8, 12, 12] if family != "qwen3_5" else None
    if section:
        own["rope_parameters"] = {
            "rope_type": "default",
            "rope_theta": given.get("rope_theta") or given["rope_parameters"]["rope_theta"],
            "mrope_section": section,
        }
        own.pop("rope_theta", None)
    vision: dict[str, Any] = {"depth": 4, "num_heads": 2}
    hidden = own["hidden_size"]
    if family == "qwen2_vl":
        vision |= {"embed_dim": _TOWER, "hidden_size": hidden, "mlp_ratio": 2}
    elif family == "qwen2_5_vl":
        vision |= {"hidden_size": _TOWER, "out_hidden_size": hidden, "intermediate_size": 128}
        vision |= {"fullatt_block_indexes": [1, 3], "window_size": 112}
    else:
        vision |= {"hidden_size": _TOWER, "out_hidden_size": hidden, "intermediate_size": 128}
        vision |= {"num_position_embeddings": 64}
        if family == "qwen3_vl":
            vision["deepstack_visual_indexes"] = [1, 2]
    name = {
        "qwen2_vl": "Qwen2VL",
        "qwen2_5_vl": "Qwen2_5_VL",
        "qwen3_vl": "Qwen3VL",
        "qwen3_5": "Qwen3_5",
    }[family]
    special = special_tokens(text)
    config = getattr(transformers, f"{name}Config")(
        text_config=own,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=own.get("tie_word_embeddings", True),
    )
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).float().eval()
    loud(model.model.visual)
    weights = load_file(text / "model.safetensors")
    renamed = {
        key.replace("model.", "model.language_model.", 1)
        if key.startswith("model.") and not key.startswith("model.language_model.")
        else key: value.float()
        for key, value in weights.items()
    }
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected, unexpected
    assert all("visual" in key or key == "lm_head.weight" for key in missing), missing
    model.tie_weights()
    return model


def loud(tower: Any) -> None:
    """Draw the weights of a tower: those of the usual size leave a picture without a voice beside
    random text."""
    import torch

    with torch.no_grad():
        for label, weight in tower.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * (1.2 / weight[0].numel() ** 0.5))
            elif "norm" not in label and "ln_q" not in label:
                weight.copy_(torch.randn_like(weight) * 0.1)


def _write_text(family: str, text: Path, out: Path) -> None:
    """The decoder as F32, under the architecture's name for models that see."""
    plain = out.with_suffix(".plain")
    convert(text, plain, "BF16")
    reader = gguf.GGUFReader(plain)
    old = reader.fields["general.architecture"].contents()
    new = old if family == "qwen3_5" else f"{old}vl"
    writer = gguf.GGUFWriter(out, new)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, *sub = field.types
        writer.add_key_value(
            name.replace(f"{old}.", f"{new}.", 1), field.contents(), kind, sub[0] if sub else None
        )
    if family != "qwen3_5":
        writer.add_rope_dimension_sections([8, 12, 12, 0])
    if family == "qwen3_vl":
        writer.add_num_deepstack_layers(2)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.reshape(tensor.shape[::-1]).astype(np.float32))
    _finish(writer)
    plain.unlink()


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_NAMES = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.proj": "attn_out",
    "attn.qkv": "attn_qkv",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_MERGER = {
    "ln_q": "v.post_ln",
    "norm": "v.post_ln",
    "mlp.0": "mm.0",
    "mlp.2": "mm.2",
    "linear_fc1": "mm.0",
    "linear_fc2": "mm.2",
}
_DEEP = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def write_projector(
    model: Any,
    family: str,
    out: Path,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    kind: str,
    *,
    damage: Callable[[str, np.ndarray[Any, Any]], np.ndarray[Any, Any] | None] | None = None,
    layers: int | None = None,
) -> None:
    """The tower of a model as an mmproj file, its matrices in f32, f16 or q8_0. `damage` changes
    tensors by their label, or leaves them out; `layers` is how many the file says there are."""
    vision = model.config.vision_config
    writer = gguf.GGUFWriter(out, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_file_type(int(gguf.LlamaFileType["MOSTLY_F16" if kind == "f16" else "ALL_F32"]))
    writer.add_bool("clip.has_vision_encoder", True)
    merger = {"qwen2_vl": "qwen2vl", "qwen2_5_vl": "qwen2.5vl"}.get(family, "qwen3vl")
    writer.add_string("clip.projector_type", f"{merger}_merger")
    side = 560 if family.startswith("qwen2") else int(vision.num_position_embeddings**0.5) * 16
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    for key, value in {
        "projection_dim": model.config.text_config.hidden_size,
        "image_size": side,
        "patch_size": vision.patch_size,
        "embedding_length": width,
        "feed_forward_length": getattr(vision, "intermediate_size", width),
        "block_count": layers or vision.depth,
        "attention.head_count": vision.num_heads,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", list(mean))
    writer.add_array("clip.vision.image_std", list(std))
    deep = list(vision.deepstack_visual_indexes) if family == "qwen3_vl" else []
    if family == "qwen2_5_vl":
        writer.add_bool("clip.use_silu", True)
        writer.add_uint32("clip.vision.n_wa_pattern", vision.fullatt_block_indexes[0] + 1)
    if merger == "qwen3vl":
        writer.add_bool("clip.use_gelu", True)
        writer.add_uint32("clip.vision.spatial_merge_size", 2)
        writer.add_array(
            "clip.vision.is_deepstack_layers", [layer in deep for layer in range(vision.depth)]
        )
    for name, weight in model.model.visual.state_dict().items():
        for label, whole in _tensors(name, weight.numpy(), family, deep):
            kept = whole if damage is None else damage(label, whole)
            if kept is None:
                continue
            values = np.ascontiguousarray(kept)
            small = values.ndim == 1 or "position_embd" in label
            if kind == "q8_0" and values.ndim == 2 and not small and values.shape[1] % 32 == 0:
                quantized = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
                writer.add_tensor(label, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            else:
                dtype = np.float32 if kind == "f32" or small else np.float16
                writer.add_tensor(label, values.astype(dtype))
    _finish(writer)


def _tensors(
    name: str, values: np.ndarray[Any, Any], family: str, deep: list[int]
) -> list[tuple[str, np.ndarray[Any, Any]]]:
    stem, end = name.rsplit(".", 1)
    if stem == "patch_embed.proj":
        if end == "bias":
            return [("v.patch_embd.bias", values)]
        return [
            ("v.patch_embd.weight", values[:, :, 0]),
            ("v.patch_embd.weight.1", values[:, :, 1]),
        ]
    if stem == "pos_embed":
        return [("v.position_embd.weight", values)]
    if stem.startswith("blocks."):
        _, layer, part = stem.split(".", 2)
        label = f"v.blk.{layer}.{_NAMES[part]}.{end}"
        if part == "attn.qkv" and family.startswith("qwen2"):
            thirds = np.split(values, 3)
            return [
                (label.replace("qkv", letter), third)
                for letter, third in zip("qkv", thirds, strict=True)
            ]
        return [(label, values)]
    if stem.startswith("deepstack_merger_list."):
        _, number, part = stem.split(".", 2)
        return [(f"v.deepstack.{deep[int(number)]}.{_DEEP[part]}.{end}", values)]
    return [(f"{_MERGER[stem.removeprefix('merger.')]}.{end}", values)]
