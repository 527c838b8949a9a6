"""Train the small Qwen3 model of the tests. See README.md here; needs torch and transformers, which
the openvino extra installs.

python -m training.train WORK [--minutes 3.5]      as often as it takes: it goes on where it stopped
python -m training.train WORK --write FOLDER       the checkpoint, once all steps are done
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from training import corpus, tokenizer

SEED = 20261121
STEPS = 600
CONTEXT = 2048
LENGTH, ROWS = 256, 8
PROMPT_WEIGHT = 0.2
"""What a prompt's token counts for in the loss: names and numbers in a question cannot be
foreseen."""
MATRIX_RATE, VECTOR_RATE = 3e-3, 3e-3
_WARM_UP, _LEVEL_UNTIL = 40, 0.75
_KEEP_EVERY = 50

CONFIG: dict[str, Any] = {
    "vocab_size": tokenizer.VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}


class Batches:
    """Step -> token ids and weights of ROWS x (LENGTH + 1), the same whenever they are asked
    for."""

    def __init__(self, words: Tokenizer, name: str, *, held_out: bool = False) -> None:
        self._words, self._name, self._held_out = words, name, held_out

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The documents of a step, one behind the other and cut into rows."""
        ids: list[int] = []
        weights: list[float] = []
        size = ROWS * (LENGTH + 1)
        for document in corpus.documents(f"{SEED}/{self._name}/{step}", held_out=self._held_out):
            for text, weight in ((document.prompt, PROMPT_WEIGHT), (document.completion, 1.0)):
                found = self._words.encode(text, add_special_tokens=False).ids
                ids += found
                weights += [weight] * len(found)
            if len(ids) >= size:
                break
        return torch.tensor(ids[:size]).view(ROWS, -1), torch.tensor(weights[:size]).view(ROWS, -1)


def loss_of(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean of nats per token."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    each = functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    share = weights[:, 1:].flatten()
    return (each * share).sum() / share.sum()


def optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for the embedding and the norms."""
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and "embed" not in name
    ]
    others = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim != 2 or "embed" in name
    ]
    return [
        torch.optim.Muon(
            matrices,
            lr=MATRIX_RATE,
            weight_decay=0.1,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: up in a line, level, and down to nothing in the last
    quarter."""
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / (steps * (1 - _LEVEL_UNTIL)))


def train(work: Path, seconds: float, steps: int) -> bool:
    """Go on for so long; True when all steps are done."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if not (work / "tokenizer.json").is_file():
        tokenizer.write(work, SEED, CONTEXT)
    words = Tokenizer.from_file(str(work / "tokenizer.json"))
    model = Qwen3ForCausalLM(Qwen3Config(**CONFIG, attn_implementation="sdpa"))
    steppers = optimizers(model)
    batches = Batches(words, "train")
    state_file = work / "state.pt"
    start, spent = 0, 0.0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for stepper, kept in zip(steppers, state["steppers"], strict=True):
            stepper.load_state_dict(kept)
        start, spent = state["step"], state["seconds"]

    began = time.monotonic()

    def keep(step: int) -> None:
        partial = work / "state.partial"
        seconds_so_far = spent + time.monotonic() - began
        kept = {
            "model": model.state_dict(),
            "steppers": [stepper.state_dict() for stepper in steppers],
        }
        torch.save({**kept, "step": step, "seconds": seconds_so_far}, partial)
        partial.replace(state_file)

    full_rates = [group["lr"] for stepper in optimizers(model) for group in stepper.param_groups]
    for step in range(start, steps):
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, full in zip(groups, full_rates, strict=True):
            group["lr"] = full * rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, *batches[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        if step % 20 == 0:
            print(
                f"{step:5d}  {loss.item():.3f}  {time.monotonic() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if (step + 1) % _KEEP_EVERY == 0 or step + 1 == steps:
            keep(step + 1)
        if time.monotonic() - began > seconds and step + 1 < steps:
            keep(step + 1)
            return False
    return True


def write(work: Path, folder: Path) -> None:
    """The checkpoint as Qwen publishes its own: bf16 safetensors, config, generation_config,
    tokenizer."""
    from safetensors.torch import save_file

    state = torch.load(work / "state.pt", weights_only=True)
    words = Tokenizer.from_file(str(work / "tokenizer.json"))
    end_of_text, end_of_turn = (
        words.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>")
    )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in state["model"].items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = CONFIG | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_turn,
        "initializer_range": 0.02,
        "rope_theta": CONFIG["rope_parameters"]["rope_theta"],
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }
    del config["rope_parameters"]
    generation = {
        "bos_token_id": end_of_text,
        "do_sample": False,
        "eos_token_id": [end_of_turn, end_of_text],
        "pad_token_id": end_of_text,
    }
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((work / name).read_bytes())


@torch.no_grad()
def figures(work: Path) -> dict[str, float]:
    """Perplexity of the held-out part by kind of token: all of them, what is answered, and the
    uniform guess."""
    words = Tokenizer.from_file(str(work / "tokenizer.json"))
    state = torch.load(work / "state.pt", weights_only=True)
    model = Qwen3ForCausalLM(Qwen3Config(**CONFIG)).eval()
    model.load_state_dict(
        {name: tensor.to(torch.bfloat16).float() for name, tensor in state["model"].items()}
    )
    batches = Batches(words, "held out", held_out=True)
    totals = {"all": [0.0, 0], "completions": [0.0, 0]}
    for step in range(4):
        ids, weights = batches[step]
        each = functional.cross_entropy(
            model(input_ids=ids[:, :-1], use_cache=False).logits.flatten(0, 1),
            ids[:, 1:].flatten(),
            reduction="none",
        )
        learnt = weights[:, 1:].flatten() == 1.0
        for name, chosen in (("all", each), ("completions", each[learnt])):
            totals[name][0] += chosen.sum().item()
            totals[name][1] += chosen.numel()
    found = {f"perplexity_{name}": math.exp(nats / count) for name, (nats, count) in totals.items()}
    return {
        **found,
        "perplexity_uniform": float(tokenizer.VOCAB),
        "steps": state["step"],
        "training_s": state["seconds"],
    }


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "work", type=Path, help="a folder for what stands between; made if it is not there"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after that long")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write the finished checkpoint there"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = train(options.work, options.minutes * 60, options.steps)
    if done and options.write:
        write(options.work, options.write)
    print(json.dumps({"done": done, **(figures(options.work) if done else {})}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
