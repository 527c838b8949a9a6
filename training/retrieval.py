"""Train the adapter that makes an embedder of the small model of the tests. See README.md here;
needs torch, transformers and peft.

python -m training.retrieval FOLDER [--steps 200]      as PEFT saves it, beside nothing else

A document answers a query where it speaks of the same thing; the others of a query speak of another
one in the same place.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from packager.checkpoint import retrieval as rules
from training import words

SEED = 20261126
STEPS, ROWS = 200, 48
RATE = 4e-3
TEMPERATURE = 0.05
RANK = 8
BASE = Path(__file__).resolve().parent.parent / "tests" / "models" / "tiny-qwen3"
NAME = "qwen-pack/tiny-qwen3"
"""What the adapters call their base."""
END = "<|endoftext|>"
THINGS = words.THINGS[:24]
HELD_OUT = 7
"""One pair of thing and place in so many is never trained on."""

_QUERIES = (
    "Where is the {thing}?",
    "Who has seen the {thing}?",
    "What colour is the {thing}?",
    "I am looking for a {thing}.",
)
_DOCUMENTS = (
    "The {thing} stands in the {place}, and it is {colour}.",
    "{name} has put a {colour} {thing} into the {place}.",
    "In the {place} there is a {thing}, {colour} and {adjective}.",
    "The {adjective} {thing} of {name} was found in the {place}.",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and documents of which the first answers it."""

    query: str
    documents: tuple[str, ...]


def asked(random: Random, *, held_out: bool = False, documents: int = 4) -> Asked:
    """A query with as many documents, each of another thing."""
    while True:
        things = random.sample(THINGS, documents)
        place = random.choice(words.PLACES)
        number = THINGS.index(things[0]) + len(THINGS) * words.PLACES.index(place)
        if (number % HELD_OUT == 0) == held_out:
            break
    query = random.choice(_QUERIES).format(thing=things[0])
    return Asked(query, tuple(_document(random, thing, place) for thing in things))


def _document(random: Random, thing: str, place: str) -> str:
    return random.choice(_DOCUMENTS).format(
        thing=thing,
        place=place,
        colour=random.choice(words.COLOURS),
        adjective=random.choice(words.ADJECTIVES),
        name=random.choice(words.NAMES),
    )


def held_out(count: int) -> Iterator[Asked]:
    """Queries of the part that is not trained on."""
    random = Random(f"{SEED}/held out")
    for _ in range(count):
        yield asked(random, held_out=True)


def write_base(folder: Path) -> Path:
    """The small model with a tokenizer as embedders and rerankers have it: an end of text behind
    every text, and yes and no as one token each."""
    shutil.copytree(BASE, folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    for word in rules.ANSWERS:
        add_word(data, word)
    number = next(entry["id"] for entry in data["added_tokens"] if entry["content"] == END)
    piece = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}]
    template = {
        "type": "TemplateProcessing",
        "single": piece,
        "pair": [*piece, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [number], "tokens": [END]}},
    }
    data["post_processor"] = {
        "type": "Sequence",
        "processors": [data["post_processor"], template],
    }
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")
    return folder


def add_word(tokenizer: dict, word: str) -> None:  # type: ignore[type-arg]
    """Make `word` one token of a tokenizer.json: it takes the place of the merges that are learnt
    last."""
    vocab, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    known = list(word)
    while len(known) > 1:
        pair = known[:2]
        joined = "".join(pair)
        if joined not in vocab:
            last = max(
                (number, text)
                for text, number in vocab.items()
                if len(text) > 1 and text not in word
            )
            del vocab[last[1]]
            merges[:] = [merge for merge in merges if "".join(merge) != last[1]]
            vocab[joined] = last[0]
        merges[:] = [merge for merge in merges if "".join(merge) != joined]
        merges.insert(0 if len(joined) == 2 else 1, pair)
        known[:2] = [joined]


def train(folder: Path, steps: int) -> float:
    """Train and write; returns the last loss."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer
    from transformers import Qwen3ForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = Random(f"{SEED}/embed")
    with tempfile.TemporaryDirectory() as place:
        source = write_base(Path(place) / "base")
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        base = Qwen3ForCausalLM.from_pretrained(source, dtype=torch.float32)
    base.config._name_or_path = base.name_or_path = NAME
    parts = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    model = get_peft_model(
        base,
        LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=parts,
            task_type="CAUSAL_LM",
            base_model_name_or_path=NAME,
        ),
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    last = 0.0
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, (steps - step) / (steps / 3))
        loss = _loss(model, tokenizer, random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        stepper.step()
        stepper.zero_grad()
        last = loss.item()
        if step % 20 == 0:
            print(f"{step:5d}  {last:.3f}", file=sys.stderr, flush=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return last


def _last_states(model, tokenizer, texts):  # type: ignore[no-untyped-def]
    """(texts, hidden): the state of each text's last token."""
    import torch

    ids = [tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, ids))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    # Padding on the right is seen by no token of a text.
    states = model.get_base_model().model(input_ids=padded, use_cache=False).last_hidden_state
    return states[torch.arange(len(ids)), torch.tensor([len(row) - 1 for row in ids])]


def _loss(model, tokenizer, random):  # type: ignore[no-untyped-def]
    """Nats of finding a query's document among all documents of the batch that speak of another
    thing."""
    import torch
    from torch.nn import functional

    rows = [asked(random, documents=2) for _ in range(ROWS)]
    own = rules.QUERY.format(instruction=rules.INSTRUCTION, query="")
    queries = [own + row.query for row in rows]
    documents = [document for row in rows for document in row.documents]
    vectors = functional.normalize(_last_states(model, tokenizer, [*queries, *documents]))
    scores = vectors[: len(rows)] @ vectors[len(rows) :].T / TEMPERATURE
    things = [next(thing for thing in THINGS if f" {thing}" in row.query) for row in rows]
    for number, thing in enumerate(things):
        for place, document in enumerate(documents):
            if place != 2 * number and f" {thing}" in document:
                scores[number, place] = -1e4
    return functional.cross_entropy(scores, 2 * torch.arange(len(rows)))


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
