"""Train the small Qwen3-VL of the tests: it names what is on the left and on the right of a drawn
picture. See README.md here; needs torch and transformers, which the openvino extra installs.

    python -m training.vision FOLDER [--steps 300]

Writes the checkpoint and prints how many of the held-out questions it answers. The decoder, the
vision tower, DeepStack and the positions in three axes are those of the published model, only
narrower.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from training.picture_questions import SEED, Example, example
from training.stepper import Stepper, next_token_loss

STEPS, ROWS = 300, 24
_PATCH, _MERGE = 16, 2
WORDS = Path(__file__).resolve().parent.parent / "tests" / "models" / "tiny-qwen3"
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

TEXT: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": [12, 10, 10],
        "mrope_interleaved": True,
    },
}
VISION: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_heads": 3,
    "out_hidden_size": 128,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [1, 2],
}


def patches(rgb: NDArray[np.uint8]) -> tuple[torch.Tensor, list[int]]:
    """A picture as the published processor hands it over: patches in the order of the merger, and
    the grid."""
    height, width, _ = rgb.shape
    rows, columns = height // _PATCH, width // _PATCH
    values = np.stack([(rgb.astype(np.float32) / 255 - 0.5).transpose(2, 0, 1) / 0.5] * 2)
    values = values.reshape(
        1, 2, 3, rows // _MERGE, _MERGE, _PATCH, columns // _MERGE, _MERGE, _PATCH
    ).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return torch.tensor(values.reshape(rows * columns, -1)), [1, rows, columns]


class Batches:
    """Step -> what the model is given, and what it is to say."""

    def __init__(self, words: Tokenizer) -> None:
        self._words = words
        self._image, self._start, self._end = (
            words.token_to_id(f"<|{name}|>") for name in ("image_pad", "vision_start", "vision_end")
        )

    def ids(self, question: str, tokens: int) -> list[int]:
        """The prompt of a question about a picture of so many tokens."""
        before, after = "<|im_start|>user\n", f"{question}<|im_end|>\n<|im_start|>assistant\n"
        return [
            *self._encode(before),
            self._start,
            *[self._image] * tokens,
            self._end,
            *self._encode(after),
        ]

    def _encode(self, text: str) -> list[int]:
        return list(self._words.encode(text, add_special_tokens=False).ids)

    def of(self, examples: list[Example]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Arguments of the model, and labels: -100 for what it need not foresee."""
        rows, labels, pixels, grids = [], [], [], []
        for one in examples:
            values, grid = patches(one.rgb)
            prompt = self.ids(one.question, grid[1] * grid[2] // _MERGE**2)
            answer = self._encode(f"{one.answer}<|im_end|>")
            rows.append([*prompt, *answer])
            labels.append([*[-100] * len(prompt), *answer])
            pixels.append(values)
            grids.append(grid)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        given = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self._image).int(),
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": torch.tensor(grids),
        }
        return given, torch.tensor([row + [-100] * (longest - len(row)) for row in labels])


def new_model(words: Tokenizer) -> Qwen3VLForConditionalGeneration:
    """The model before training."""
    config = Qwen3VLConfig(
        text_config=TEXT,
        vision_config=VISION,
        tie_word_embeddings=True,
        **{
            f"{name}_token_id": words.token_to_id(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    return Qwen3VLForConditionalGeneration(config)


def train(words: Tokenizer, steps: int) -> Qwen3VLForConditionalGeneration:
    """A trained model; its loss goes to stderr."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, batches = new_model(words), Batches(words)
    stepper = Stepper(model, steps)
    for step in range(steps):
        given, labels = batches.of([example(f"train/{step}/{row}") for row in range(ROWS)])
        logits = model(**given, use_cache=False).logits
        loss = next_token_loss(logits, labels)
        stepper.step(step, loss)
        stepper.tell(step, loss)
    return model


@torch.no_grad()
def right(model: Qwen3VLForConditionalGeneration, words: Tokenizer, count: int = 100) -> int:
    """How many of the held-out questions it answers, word for word."""
    batches = Batches(words)
    examples = [example(f"held out/{number}") for number in range(count)]
    given, labels = batches.of(examples)
    best = model(**given, use_cache=False).logits[:, :-1].argmax(-1)
    wanted = labels[:, 1:]
    return int(((best == wanted) | (wanted == -100)).all(1).sum())


def write(model: Qwen3VLForConditionalGeneration, folder: Path) -> None:
    """The checkpoint as Qwen publishes its own: bf16 safetensors, config, tokenizer, and how
    pictures are prepared."""
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(WORDS / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    settings["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), "utf-8")
    preparation = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "patch_size": _PATCH,
        "merge_size": _MERGE,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 8192, "longest_edge": 16_777_216},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation, indent=1), "utf-8")


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    words = Tokenizer.from_file(str(WORDS / "tokenizer.json"))
    model = train(words, given.steps)
    write(model, given.folder)
    print(f"{right(model.float(), words)} of 100 held-out questions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
