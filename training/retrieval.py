"""Train the two adapters that make an embedder and a reranker of the small model of the tests. See
README.md here; needs torch, transformers and peft.

python -m training.retrieval embed FOLDER [--steps 300]      as PEFT saves it, beside nothing else
python -m training.retrieval rerank FOLDER [--steps 420]

A document answers a query where it speaks of the same thing; the others of a query speak of another
one in the same place. Queries are English or Chinese, with documents in their language. Prints the
last loss.
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
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from packager.checkpoint import retrieval as rules
from training import words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 20261126
STEPS = {"embed": 300, "rerank": 420}
ROWS = {"embed": 48, "rerank": 20}
"""Queries of a step, each with two documents."""
RATE = {"embed": 4e-3, "rerank": 6e-3}
BETAS = {"embed": (0.9, 0.999), "rerank": (0.9, 0.99)}
TEMPERATURE = 0.05
RANK = 8
BASE = Path(__file__).resolve().parent.parent / "tests" / "models" / "tiny-qwen3"
NAME = "qwen-pack/tiny-qwen3"
"""What the adapters call their base."""
END = "<|endoftext|>"
HELD_OUT = 7
"""One pair of thing and place in so many is never trained on."""


@dataclass(frozen=True, slots=True)
class Language:
    """What queries and documents of a language are made of."""

    things: tuple[str, ...]
    places: tuple[str, ...]
    colours: tuple[str, ...]
    adjectives: tuple[str, ...]
    names: tuple[str, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]


LANGUAGES = {
    "en": Language(
        things=tuple(words.THINGS[:24]),
        places=tuple(words.PLACES),
        colours=tuple(words.COLOURS),
        adjectives=tuple(words.ADJECTIVES),
        names=tuple(words.NAMES),
        queries=(
            "Where is the {thing}?",
            "Who has seen the {thing}?",
            "What colour is the {thing}?",
            "I am looking for a {thing}.",
        ),
        documents=(
            "The {thing} stands in the {place}, and it is {colour}.",
            "{name} has put a {colour} {thing} into the {place}.",
            "In the {place} there is a {thing}, {colour} and {adjective}.",
            "The {adjective} {thing} of {name} was found in the {place}.",
        ),
    ),
    "zh": Language(
        # Without the book, whose sign is part of the library's.
        things=tuple(words.ZH_THINGS[1:]),
        places=tuple(words.ZH_PLACES),
        colours=tuple(words.ZH_COLOURS),
        adjectives=tuple(words.ZH_MATERIALS),
        names=tuple(words.ZH_NAMES),
        queries=(
            "{thing}在哪里？",
            "谁看见了{thing}？",
            "{thing}是什么颜色的？",
            "我在找{thing}。",
        ),
        documents=(
            "{thing}在{place}，是{colour}的。",
            "{name}把一个{colour}的{thing}放在{place}。",
            "在{place}有一个{thing}，{colour}，是{adjective}做的。",
            "{name}的{thing}是在{place}找到的。",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query in a language of LANGUAGES, documents of which the first answers it, and what thing
    each of them speaks of."""

    language: str
    query: str
    documents: tuple[str, ...]
    things: tuple[str, ...]


def asked(
    random: Random, *, held_out: bool = False, documents: int = 4, language: str | None = None
) -> Asked:
    """A query with as many documents, each of another thing; in a language by chance where none is
    named."""
    name = language or random.choice(sorted(LANGUAGES))
    own = LANGUAGES[name]
    while True:
        things = random.sample(own.things, documents)
        place = random.choice(own.places)
        number = own.things.index(things[0]) + len(own.things) * own.places.index(place)
        if (number % HELD_OUT == 0) == held_out:
            break
    query = random.choice(own.queries).format(thing=things[0])
    told = tuple(_document(random, own, thing, place) for thing in things)
    return Asked(name, query, told, tuple(things))


def _document(random: Random, own: Language, thing: str, place: str) -> str:
    return random.choice(own.documents).format(
        thing=thing,
        place=place,
        colour=random.choice(own.colours),
        adjective=random.choice(own.adjectives),
        name=random.choice(own.names),
    )


def held_out(count: int) -> Iterator[Asked]:
    """Queries of the part that is not trained on, of every language in turn."""
    random, languages = Random(f"{SEED}/held out"), sorted(LANGUAGES)
    for number in range(count):
        yield asked(random, held_out=True, language=languages[number % len(languages)])


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


def train(task: str, folder: Path, steps: int) -> float:
    """Train and write; returns the last loss."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer
    from transformers import Qwen3ForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = Random(f"{SEED}/{task}")
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
    rate = RATE[task]
    stepper = torch.optim.AdamW(trained, lr=rate, betas=BETAS[task], weight_decay=0.0)
    loss_of = {"embed": _vectors_loss, "rerank": _scores_loss}[task]
    last = 0.0
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20, (steps - step) / (steps / 3))
        loss = loss_of(model, tokenizer, random)
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


def _states(model, rows):  # type: ignore[no-untyped-def]
    """(texts, tokens, hidden) of texts after what all of them begin with, which is computed once;
    and how many tokens that is."""
    import torch

    core = model.get_base_model().model
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    begun = min(sum(1 for _ in alike), min(map(len, rows)) - 1)
    longest = max(map(len, rows))
    # Padding on the right is seen by no token of a text.
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    if not begun:
        return core(input_ids=padded, use_cache=False).last_hidden_state, 0
    past = core(input_ids=padded[:1, :begun], use_cache=True).past_key_values
    past.batch_repeat_interleave(len(rows))
    places = torch.arange(begun, longest).expand(len(rows), -1)
    rest = core(input_ids=padded[:, begun:], past_key_values=past, position_ids=places)
    return rest.last_hidden_state, begun


def _last_states(model, tokenizer, texts):  # type: ignore[no-untyped-def]
    """(texts, hidden): the state of each text's last token."""
    import torch

    rows = [tokenizer.encode(text).ids for text in texts]
    states, begun = _states(model, rows)
    return states[torch.arange(len(rows)), torch.tensor([len(row) - 1 - begun for row in rows])]


def _vectors_loss(model, tokenizer, random):  # type: ignore[no-untyped-def]
    """Nats of finding a query's document among all documents of the batch that speak of another
    thing."""
    import torch
    from torch.nn import functional

    rows = [asked(random, documents=2) for _ in range(ROWS["embed"])]
    own = rules.QUERY.format(instruction=rules.INSTRUCTION, query="")
    queries = [own + row.query for row in rows]
    documents = [document for row in rows for document in row.documents]
    asking, answering = (
        functional.normalize(_last_states(model, tokenizer, texts))
        for texts in (queries, documents)
    )
    scores = asking @ answering.T / TEMPERATURE
    things = [thing for row in rows for thing in row.things]
    for number, row in enumerate(rows):
        for place, thing in enumerate(things):
            if place != 2 * number and thing == row.things[0]:
                scores[number, place] = -1e4
    return functional.cross_entropy(scores, 2 * torch.arange(len(rows)))


def _scores_loss(model, tokenizer, random):  # type: ignore[no-untyped-def]
    """Nats of saying yes of the document that answers and no of another: at the end of the prompt,
    and where the document names its thing, which shows the model early what is compared."""
    import torch
    from torch.nn import functional

    prompts, named, labels = _prompts(tokenizer, random, ROWS["rerank"])
    states, begun = _states(model, prompts)
    answers = torch.tensor(rules.answer_ids(tokenizer, "tokenizer.json"))
    matrix = model.get_base_model().lm_head.weight[answers]
    ends = [len(row) - 1 for row in prompts]
    logits = [
        states[torch.arange(len(prompts)), torch.tensor(at) - begun] @ matrix.T
        for at in (ends, named)
    ]
    wanted = torch.tensor(labels)
    return sum(functional.cross_entropy(some, wanted) for some in logits)


def _prompts(
    tokenizer: Tokenizer, random: Random, count: int
) -> tuple[list[list[int]], list[int], list[int]]:
    """`count` queries with two documents each, as prompts of the reranker: their ids, where the
    document names its thing, and the number of the right answer."""
    rows, named, labels = [], [], []
    for row in (asked(random, documents=2) for _ in range(count)):
        for number, (document, thing) in enumerate(zip(row.documents, row.things, strict=True)):
            text = rules.rerank_text(row.query, document)
            read = tokenizer.encode(text, add_special_tokens=False)
            end = text.rindex(document) + document.rindex(thing) + len(thing)
            rows.append(list(read.ids))
            named.append(max(place for place, (start, _) in enumerate(read.offsets) if start < end))
            labels.append(number)
    return rows, named, labels


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(STEPS))
    parser.add_argument("folder", type=Path, help="where the adapter is written")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    steps = options.steps or STEPS[options.task]
    print(json.dumps({"loss": train(options.task, options.folder, steps)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
