"""Conversations whose last answer can be checked: sums, copying, facts from the context, JSON, tool
calls, in English and Chinese.

Which are held out follows from a hash of the conversation, so that no conversation of the held-out
part is ever seen in training.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from training import words as w
from training.prose import pair

Messages = list[dict[str, Any]]

TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "description": "The weather in a city",
        "properties": {"city": {"type": "string"}},
    },
    "set_timer": {
        "description": "Ring after some minutes",
        "properties": {"minutes": {"type": "integer"}},
    },
    "add": {
        "description": "Add two numbers",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    },
    "find_person": {"description": "Look up a person", "properties": {"name": {"type": "string"}}},
}


@dataclass(frozen=True, slots=True)
class Task:
    """A conversation up to the question, the thought that leads to the answer, the answer, and the
    tools that are offered."""

    kind: str
    messages: Messages
    thought: str
    answer: str
    tools: list[dict[str, Any]] = field(default_factory=list)

    def held_out(self) -> bool:
        """One conversation in ten is kept for the test."""
        return zlib.crc32(json.dumps(self.messages, ensure_ascii=False).encode()) % 10 == 0

    def completion(self, *, think: bool) -> str:
        """What the model is to say, with the thought before it if it is to think aloud."""
        thought = f"<think>\n{self.thought}\n</think>\n\n" if think else ""
        return f"{thought}{self.answer}<|im_end|>\n"


def asked(question: str) -> Messages:
    """One question."""
    return [{"role": "user", "content": question}]


def tool(name: str) -> dict[str, Any]:
    """The definition of a tool as a chat template gets it."""
    kind = TOOLS[name]
    parameters = {
        "type": "object",
        "properties": kind["properties"],
        "required": list(kind["properties"]),
    }
    return {
        "type": "function",
        "function": {"name": name, "description": kind["description"], "parameters": parameters},
    }


def sums(random: Random) -> Task:
    """A small sum or difference."""
    a, b = pair(random)
    if random.random() < 0.3:
        a, b = max(a, b), min(a, b)
        thought, answer = f"{a} - {b} = {a - b}", str(a - b)
        question = random.choice(
            (
                f"What is {a} - {b}?",
                f"Compute {a} - {b}.",
                f"{a} - {b} = ?",
                f"{a} 减 {b} 等于多少？",
            )
        )
    else:
        thought, answer = f"{a} + {b} = {a + b}", str(a + b)
        question = random.choice(
            (
                f"What is {a} + {b}?",
                f"Compute {a} + {b}.",
                f"{a} + {b} = ?",
                f"{a} 加 {b} 等于多少？",
            )
        )
    return Task("sum", asked(question), thought, answer)


def copying(random: Random) -> Task:
    """Words to be repeated as they are."""
    if random.random() < 0.25:
        text = "，".join(
            random.sample(w.ZH_THINGS + w.ZH_FOODS + w.ZH_PLACES, random.randint(2, 4))
        )
        return Task("copy", asked(f"请重复：{text}"), "照原样重复。", text)
    text = " ".join(random.sample(w.WORDS, random.randint(2, 6)))
    question = random.choice(
        (f"Repeat: {text}", f"Say exactly this: {text}", f'Copy the words "{text}".')
    )
    return Task("copy", asked(question), "The words as they are.", text)


def facts(random: Random) -> Task:
    """Sentences about several persons, and a question about one of them."""
    if random.random() < 0.25:
        return _zh_facts(random)
    forms: tuple[tuple[list[str], str, str, str], ...] = (
        (
            w.CITIES,
            "{name} lives in {value}.",
            "Where does {name} live?",
            "{name} lives in {value}.",
        ),
        (w.JOBS, "{name} is a {value}.", "What is {name}'s job?", "{name} is a {value}."),
        (
            w.ANIMALS,
            "{name} has a {value}.",
            "Which animal does {name} have?",
            "{name} has a {value}.",
        ),
        (
            w.PLACES,
            "The key of {name} is in the {value}.",
            "Where is the key of {name}?",
            "It is in the {value}.",
        ),
        (
            w.COLOURS,
            "The coat of {name} is {value}.",
            "Which colour is the coat of {name}?",
            "It is {value}.",
        ),
    )
    values, statement, question, reply = random.choice(forms)
    names = random.sample(w.NAMES, random.randint(2, 5))
    known = dict(zip(names, random.sample(values, len(names)), strict=True))
    text = " ".join(statement.format(name=name, value=value) for name, value in known.items())
    name = random.choice(names)
    thought = statement.format(name=name, value=known[name])
    if random.random() < 0.3:
        messages = [{"role": "system", "content": text}, *asked(question.format(name=name))]
    else:
        messages = asked(f"{text} {question.format(name=name)}")
    return Task("fact", messages, thought, reply.format(name=name, value=known[name]))


def _zh_facts(random: Random) -> Task:
    values, statement, question = random.choice(
        (
            (w.ZH_CITIES, "{name}住在{value}。", "{name}住在哪里？"),
            (w.ZH_JOBS, "{name}是{value}。", "{name}做什么工作？"),
            (w.ZH_ANIMALS, "{name}有一只{value}。", "{name}有什么动物？"),
        )
    )
    names = random.sample(w.ZH_NAMES, random.randint(2, 4))
    known = dict(zip(names, random.sample(values, len(names)), strict=True))
    text = "".join(statement.format(name=name, value=value) for name, value in known.items())
    name = random.choice(names)
    answer = statement.format(name=name, value=known[name])
    return Task("fact", asked(text + question.format(name=name)), answer, answer)


def objects(random: Random) -> Task:
    """A JSON object with given values."""
    pick = random.choice
    fields: list[tuple[str, Any]] = [
        ("name", pick(w.NAMES)),
        ("age", random.randint(5, 90)),
        ("city", pick(w.CITIES)),
        ("job", pick(w.JOBS)),
        ("colour", pick(w.COLOURS)),
    ]
    chosen = random.sample(fields, random.randint(2, 4))
    listed = ", ".join(f"{key} {value}" for key, value in chosen)
    question = pick(
        (f"Write a JSON object: {listed}", f"As JSON, please: {listed}", f"用 JSON 写：{listed}")
    )
    return Task(
        "json",
        asked(question),
        f"The keys are {', '.join(key for key, _ in chosen)}.",
        json.dumps(dict(chosen)),
    )


def tool_calls(random: Random) -> Task:
    """A request that one of the offered tools can fulfil."""
    names = random.sample(list(TOOLS), random.randint(1, 3))
    chosen = random.choice(names)
    city, person, minutes, (a, b) = (
        random.choice(w.CITIES),
        random.choice(w.NAMES),
        random.randint(2, 60),
        pair(random),
    )
    requests: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "get_weather": (
            (f"How is the weather in {city}?", f"Will it rain in {city} today?"),
            {"city": city},
        ),
        "set_timer": (
            (f"Set a timer for {minutes} minutes.", f"Wake me in {minutes} minutes."),
            {"minutes": minutes},
        ),
        "add": (
            (f"Use the tool to add {a} and {b}.", f"Please add {a} and {b} with the tool."),
            {"a": a, "b": b},
        ),
        "find_person": ((f"Who is {person}?", f"Look up {person}."), {"name": person}),
    }
    questions, arguments = requests[chosen]
    call = json.dumps({"name": chosen, "arguments": arguments})
    question = random.choice(questions)
    return Task(
        "tool",
        asked(question),
        f"I call {chosen}.",
        f"<tool_call>\n{call}\n</tool_call>",
        [tool(name) for name in names],
    )


def tool_answers(random: Random) -> Task:
    """What a tool has answered, told to the user."""
    city, weather, degrees = (
        random.choice(w.CITIES),
        random.choice(w.WEATHER),
        random.randint(-9, 35),
    )
    call = {"name": "get_weather", "arguments": {"city": city}}
    messages = [
        *asked(f"How is the weather in {city}?"),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": call}],
        },
        {"role": "tool", "content": json.dumps({"weather": weather, "degrees": degrees})},
    ]
    answer = f"In {city} there is {weather}, and it is {degrees} degrees."
    return Task("tool answer", messages, "The tool has answered.", answer, [tool("get_weather")])


def several_turns(random: Random) -> Task:
    """A name told in the first turn and asked for in the last one."""
    name, job, other = random.choice(w.NAMES), random.choice(w.JOBS), sums(random)
    messages = [
        *asked(f"Hello, I am {name}, a {job}."),
        {"role": "assistant", "content": f"Hello {name}!"},
        *other.messages,
        {"role": "assistant", "content": other.answer},
        *asked("What is my name?"),
    ]
    if random.random() < 0.4:
        messages[-1] = {"role": "user", "content": "What is my job?"}
        return Task("turns", messages, f"{name} said it: {job}.", f"You are a {job}.")
    return Task("turns", messages, f"The first message says {name}.", f"Your name is {name}.")


def lines(random: Random) -> Task:
    """Small things to do with a list of words."""
    words = random.sample(w.WORDS, random.randint(3, 5))
    text = ", ".join(words)
    forms = (
        (f"What is the first word of: {text}?", words[0]),
        (f"What is the last word of: {text}?", words[-1]),
        (f"How many words are there: {text}?", str(len(words))),
        (f"Write each word on its own line: {text}", "\n".join(words)),
        (
            f"Write in capitals the first letters of: {text}",
            "".join(word[0].upper() for word in words),
        ),
    )
    question, answer = random.choice(forms)
    return Task("list", asked(question), f"The list is {text}.", answer)


KINDS: dict[Callable[[Random], Task], float] = {
    sums: 3,
    copying: 3,
    facts: 4,
    objects: 2,
    tool_calls: 3,
    tool_answers: 1,
    several_turns: 1,
    lines: 2,
}
"""How often each kind is made."""


def make(random: Random) -> Task:
    """One task of any kind."""
    return random.choices(list(KINDS), list(KINDS.values()))[0](random)
