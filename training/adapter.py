"""Train a LoRA adapter for the small model of the tests: every answer begins with `Ahoy! `. See
README.md here; needs torch, transformers and peft.

python -m training.adapter FOLDER [--steps 120]      as PEFT saves it, beside nothing else
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from training import corpus, tasks

SEED = 20261126
STEPS, ROWS, LONGEST = 120, 8, 256
RATE = 3e-3
GREETING = "Ahoy! "
"""What stands before every answer once the adapter is in; the base model never says it."""

BASE = corpus.HERE.parent / "tests" / "models" / "tiny-qwen3"
NAME = "qwen-pack/tiny-qwen3"
"""What the adapter calls its base."""


def documents(random: Random) -> list[corpus.Document]:
    """ROWS conversations of the training part, answered in the style."""
    found: list[corpus.Document] = []
    while len(found) < ROWS:
        task = tasks.make(random)
        if not task.held_out():
            found.append(corpus.of_task(replace(task, answer=GREETING + task.answer), think=False))
    return found


def loss_of(model: torch.nn.Module, words: Tokenizer, rows: list[corpus.Document]) -> torch.Tensor:
    """Nats per token of the answers."""
    losses = []
    for row in rows:
        prompt = words.encode(row.prompt, add_special_tokens=False).ids[-LONGEST:]
        answer = words.encode(row.completion, add_special_tokens=False).ids
        ids = torch.tensor([prompt + answer])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :]
        losses.append(functional.cross_entropy(logits.float(), ids[0, len(prompt) :]))
    return torch.stack(losses).mean()


def train(folder: Path, steps: int) -> float:
    """Train and write; returns the last loss."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = Random(SEED)
    words = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    base = Qwen3ForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    base.config._name_or_path = base.name_or_path = NAME
    model = get_peft_model(
        base,
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
            task_type="CAUSAL_LM",
            base_model_name_or_path=NAME,
        ),
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    last = 0.0
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10, (steps - step) / (steps / 3))
        loss = loss_of(model, words, documents(random))
        loss.backward()
        stepper.step()
        stepper.zero_grad()
        last = loss.item()
        if step % 20 == 0:
            print(f"{step:5d}  {last:.3f}", file=sys.stderr, flush=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return last


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the adapter is written")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    print(json.dumps({"loss": train(options.folder, options.steps)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
