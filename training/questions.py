"""How many held-out questions the small model answers exactly, greedily, with the answer ended: one
JSON object."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from training import corpus, tasks


def held_out(seed: str, count: int) -> Iterator[tasks.Task]:
    """Tasks whose conversations are not in the training part."""
    random = Random(seed)
    while count:
        task = tasks.make(random)
        if task.held_out():
            count -= 1
            yield task


def main() -> None:
    """See the module."""
    # Late: --help needs none of it.
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    ended = 0
    for number, task in enumerate(held_out("questions", options.count)):
        document = corpus.of_task(task, think=number % 2 == 0)
        prompt = torch.tensor([words.encode(document.prompt, add_special_tokens=False).ids])
        ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=80, do_sample=False
        )[0, prompt.shape[1] :]
        said = words.decode(ids.tolist(), skip_special_tokens=False)
        asked[task.kind] += 1
        ended += "<|im_end|>" in said
        right[task.kind] += said.split("</think>\n\n")[-1] == task.answer + "<|im_end|>"
    kinds = {kind: {"asked": asked[kind], "right": right[kind]} for kind in sorted(asked)}
    print(
        json.dumps({"asked": options.count, "right": right.total(), "ended": ended, "kinds": kinds})
    )


if __name__ == "__main__":
    main()
