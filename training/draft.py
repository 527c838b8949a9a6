"""Train a small model that drafts for the small Qwen3 model of the tests: its embedding, one layer
that begins as the model's first, and the same tokenizer. It learns what the model itself would say.

python -m training.draft FOLDER [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from training.train import CONFIG, SEED, Batches, rate

TEACHER = Path(__file__).resolve().parent.parent / "tests" / "models" / "tiny-qwen3"
LAYERS, STEPS = 1, 60
_RATE = 2e-3
_KEPT = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def student() -> Qwen3ForCausalLM:
    """The model with its first layer alone."""
    model = Qwen3ForCausalLM(Qwen3Config(**{**CONFIG, "num_hidden_layers": LAYERS}))
    weights = {
        name: tensor.float() for name, tensor in load_file(TEACHER / "model.safetensors").items()
    }
    model.load_state_dict(weights, strict=False)
    return model


def teacher() -> Qwen3ForCausalLM:
    """The model whose answers are foreseen."""
    model = Qwen3ForCausalLM(Qwen3Config(**CONFIG)).eval()
    weights = load_file(TEACHER / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    return model


def train(steps: int) -> tuple[Qwen3ForCausalLM, float]:
    """The student after so many steps, and in how many of the last one's places it says the same
    token as the teacher."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    knows, learns = teacher(), student()
    batches = Batches(Tokenizer.from_file(str(TEACHER / "tokenizer.json")), "draft")
    learnt = [value for name, value in learns.named_parameters() if "embed" not in name]
    stepper = torch.optim.AdamW(learnt, lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    same = 0.0
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = _RATE * rate(step, steps)
        ids = batches[step][0][:, :-1]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = knows(input_ids=ids, use_cache=False).logits.float()
            said = learns(input_ids=ids, use_cache=False).logits.float()
        loss = functional.kl_div(
            said.flatten(0, 1).log_softmax(-1),
            wanted.flatten(0, 1).softmax(-1),
            reduction="batchmean",
        )
        loss.backward()
        stepper.step()
        stepper.zero_grad()
        same = (said.argmax(-1) == wanted.argmax(-1)).float().mean().item()
        if step % 10 == 0:
            print(f"{step:4d}  {loss.item():.3f}  {same:.0%}", file=sys.stderr, flush=True)
    return learns, same


def write(model: Qwen3ForCausalLM, folder: Path) -> None:
    """The checkpoint beside its tokenizer, as the model itself is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((TEACHER / "config.json").read_text())
    config = {**config, "num_hidden_layers": LAYERS}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in _KEPT:
        shutil.copyfile(TEACHER / name, folder / name)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    began = time.process_time()
    model, same = train(options.steps)
    write(model, options.folder)
    print(json.dumps({"same_token": round(same, 3), "cpu_s": round(time.process_time() - began)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
