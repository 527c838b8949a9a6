"""A tiny Qwen2.5-Omni as transformers makes it: the checkpoint of a whole model, with the parts that
hear and speak, and both files of a package, which our own writer makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from targets.gguf.convert import convert
from targets.gguf.projector import convert_projector
from tests.support.damage import WEIGHTS
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny
from tests.support.tiny_vision import CLIP_MEAN, CLIP_STD, Tiny, loud, special_tokens

FAMILY = "qwen2_5_omni"
_IMAGE = "<|IMAGE|>"


@dataclass(frozen=True)
class TinyOmni(Tiny):
    """`model` is the thinker; `folder` holds the checkpoint."""

    folder: Path = Path()

    @property
    def tower(self) -> Any:
        return self.model.visual

    def kinds(self, ids: Any) -> dict[str, Any]:
        """It finds the pictures by their tokens alone."""
        return {}


def tiny_omni(folder: Path, kind: str = "f16") -> TinyOmni:
    """A model with random weights; the tower is stored as `kind`."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    shape = tiny_shape(
        "qwen2", layers=3, hidden=128, heads=2, kv_heads=1, intermediate=256, tied=False
    )
    source = write_tiny(folder / "text", shape=replace(shape, model_type=FAMILY), seed=3)
    path = source / "config.json"
    config = json.loads(path.read_text())
    ids = special_tokens(source)
    thinker = config["thinker_config"] | {
        "vision_config": {
            **{"depth": 4, "num_heads": 2, "hidden_size": 64, "out_hidden_size": shape.hidden},
            **{"intermediate_size": 128, "fullatt_block_indexes": [1, 3], "window_size": 112},
        },
        "audio_config": {
            **{"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2},
            **{"encoder_ffn_dim": 64, "output_dim": shape.hidden},
        },
        "tie_word_embeddings": False,
        "image_token_index": ids[_IMAGE],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_token_index": ids["<|AUDIO|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
    }
    own = {key: value for key, value in thinker["text_config"].items() if key != "torch_dtype"}
    made = transformers.Qwen2_5OmniThinkerConfig(**{**thinker, "text_config": own})
    made._attn_implementation = "eager"
    torch.manual_seed(7)
    model = transformers.Qwen2_5OmniThinkerForConditionalGeneration(made).float().eval()
    loud(model.visual)
    stored = {
        name.removeprefix("thinker."): weight.float() * _gain(name, weight)
        for name, weight in load_file(source / WEIGHTS).items()
    }
    missing, unexpected = model.load_state_dict(stored, strict=False)
    assert not unexpected and all(name.startswith(("visual", "audio_tower")) for name in missing)
    whole = {f"thinker.{name}": weight.contiguous() for name, weight in model.state_dict().items()}
    # A tensor of each part that speaks: none of them is read.
    for name in ("talker.model.layers.0.mlp.up_proj.weight", "token2wav.code2wav_bigvgan_model.x"):
        whole[name] = torch.ones(2, 2)
    save_file(whole, source / WEIGHTS, {"format": "pt"})
    path.write_text(json.dumps({**config, "thinker_config": thinker}))
    (source / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "feature_size": 128})
    )
    artifact = folder / "out"
    convert(source, artifact / "model.gguf", "BF16", overrides={".*": "F32"})
    convert_projector(source, artifact / "mmproj.gguf", kind.upper(), report=Silent())
    return TinyOmni(FAMILY, model, artifact, 28, ids[_IMAGE], CLIP_MEAN, CLIP_STD, source)


def _gain(name: str, weight: Any) -> int:
    """Decoders that listen, as in tests.support.tiny_vision."""
    return 4 if weight.ndim == 2 and ".layers." in name else 1
