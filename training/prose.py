"""Running text: short stories in English and Chinese whose later sentences depend on earlier ones,
code, sums, records."""

from __future__ import annotations

import json
from random import Random

from training import words as w


def english(random: Random) -> str:
    """A short story about one or two persons and a thing."""
    pick = random.choice
    name, other = random.sample(w.NAMES, 2)
    thing, colour, adjective, place, other_place = (
        pick(w.THINGS),
        pick(w.COLOURS),
        pick(w.ADJECTIVES),
        *random.sample(w.PLACES, 2),
    )
    city, job, mood, animal, food, day = (
        pick(kind) for kind in (w.CITIES, w.JOBS, w.MOODS, w.ANIMALS, w.FOODS, w.DAYS)
    )
    he = pick(("she", "he"))
    his = "her" if he == "she" else "his"
    openings = (
        f"{name} is a {job} from {city}.",
        f"On {day} {name} went to the {place}.",
        f"There was once a {job} called {name}, who lived near the {place}.",
        f"{name} had a {colour} {thing}.",
        f"When the {pick(w.WEATHER)} came, {name} stayed in the {place}.",
        f"In {pick(w.MONTHS)} {name} moved to {city} to work as a {job}.",
        f'"Where is my {thing}?" asked {name}.',
        f"Nobody in {city} knew that {name} was a {job}.",
    )
    middles = (
        f"In the {other_place} {he} found a {adjective} {thing} made of {pick(w.MATERIALS)}.",
        f"The {thing} was {colour}, and {name} was very {mood}.",
        f"{other} came with a {animal} and some {food}.",
        f'"I have never seen such a {adjective} {thing}," said {other}.',
        f"{he.capitalize()} looked for {his} {thing} in the {place}, but it was in the "
        f"{other_place}.",
        f"Because {he} was {mood}, {he} gave the {thing} to {other}.",
        f"The {animal} did not like the {food}, so {name} took it away.",
        f"Every {day} {he} walks from the {place} to the {other_place} and thinks of {other}.",
        f"If the {thing} is {adjective}, then it cannot belong to {other}.",
        f"{other} asked how much the {thing} had cost, and {name} answered: "
        f"{random.randint(2, 99)} crowns.",
        f"For {random.randint(2, 9)} days there was nothing but {pick(w.WEATHER)}.",
        f"They ate {food} in the {place} and talked about {city}.",
    )
    endings = (
        f"So {name} went back to the {place} with the {thing}.",
        f"Since then the {thing} has been in the {other_place}.",
        f'"Thank you," said {name}, and was {mood} again.',
        f"That is why {other} calls {name} the {job} of {city}.",
        f"In the end the {animal} slept, and so did {name}.",
        f"The next {day} everything was as it had been before.",
    )
    return " ".join((pick(openings), *random.sample(middles, random.randint(2, 5)), pick(endings)))


def chinese(random: Random) -> str:
    """The like in Chinese."""
    pick = random.choice
    name, other = random.sample(w.ZH_NAMES, 2)
    thing, colour, (place, other_place) = (
        pick(w.ZH_THINGS),
        pick(w.ZH_COLOURS),
        random.sample(w.ZH_PLACES, 2),
    )
    kinds = (w.ZH_CITIES, w.ZH_JOBS, w.ZH_MOODS, w.ZH_ANIMALS, w.ZH_FOODS, w.ZH_DAYS)
    city, job, mood, animal, food, day = (pick(kind) for kind in kinds)
    openings = (
        f"{name}是{city}的一个{job}。",
        f"{day}，{name}去了{place}。",
        f"从前有一个{job}叫{name}，住在{place}旁边。",
        f"{name}有一个{colour}的{thing}。",
        f"“我的{thing}在哪里？”{name}问。",
    )
    middles = (
        f"在{other_place}，他看见了一个旧{thing}。",
        f"{thing}是{colour}的，{name}很{mood}。",
        f"{other}带着一只{animal}和一些{food}来了。",
        f"“我从来没有见过这样的{thing}。”{other}说。",
        f"他在{place}找{thing}，可是{thing}在{other_place}。",
        f"因为他很{mood}，所以他把{thing}给了{other}。",
        f"{animal}不喜欢{food}，{name}就把它拿走了。",
        f"他们在{place}吃{food}，谈起了{city}。",
        f"{other}问{thing}多少钱，{name}说：{random.randint(2, 99)}块。",
    )
    endings = (
        f"后来{name}带着{thing}回到了{place}。",
        f"从那以后，{thing}一直在{other_place}。",
        f"“谢谢你。”{name}说，又{mood}了。",
        "第二天，一切都和以前一样。",
    )
    return "".join((pick(openings), *random.sample(middles, random.randint(2, 4)), pick(endings)))


def code(random: Random) -> str:
    """A small Python function or class with made-up names."""
    a, b, c = random.sample(w.IDENTIFIERS, 3)
    verb, thing, number = random.choice(w.VERBS), random.choice(w.THINGS), random.randint(0, 20)
    forms = (
        f'def {verb}_{a}({b}, {c}):\n    """{verb.capitalize()} the {a} of a {thing}."""\n    {a} '
        f"= {number}\n"
        f"    for {c[0]} in {b}:\n        if {c[0]} > {c}:\n            {a} += {c[0]}\n    return "
        f"{a}\n",
        f"class {thing.capitalize()}:\n    def __init__(self, {a}, {b}={number}):\n        "
        f"self.{a} = {a}\n        self.{b} = {b}\n\n"
        f"    def {verb}(self):\n        return self.{a} + self.{b}\n",
        f"for {a} in range({number}):\n    if {a} % {random.randint(2, 9)} == 0:\n        "
        f'print("{thing}", {a})\n',
        f"{a} = "
        f"[{', '.join(str(random.randint(0, 99)) for _ in range(random.randint(2, 6)))}]\n{b} = "
        f"sum({a}) / len({a})\n"
        f"assert {b} >= min({a})\n",
        f"def test_{verb}_{thing}():\n    {a} = {thing}s[{number}]\n    assert {a} is not None\n   "
        f" assert {verb}({a}) == {a}.{b}\n",
        f'try:\n    {a} = int({b}["{thing}"])\nexcept (KeyError, ValueError) as error:\n'
        f'    raise SystemExit(f"no {thing}: {{error}}") from error\nelse:\n    {c} = '
        f"{verb}({a})\n",
        f"SELECT {a}, count(*) FROM {thing}s WHERE {b} > {number} GROUP BY {a} ORDER BY {c};\n",
        f"function {verb}({a}, {b}) {{\n  const {c} = {a}.filter((x) => x > {b});\n  return "
        f"{c}.length;\n}}\n",
    )
    return random.choice(forms)


def maths(random: Random) -> str:
    """Lines of sums, or a sequence that goes on."""
    if random.random() < 0.3:
        first, step = random.randint(0, 9), random.randint(1, 9)
        return ", ".join(str(first + step * place) for place in range(random.randint(5, 9)))
    return "\n".join(sum_line(*pair(random)) for _ in range(random.randint(3, 8)))


def record(random: Random) -> str:
    """A JSON object, or lines of them."""
    pick = random.choice
    rows = [
        {
            "name": pick(w.NAMES),
            "age": random.randint(5, 90),
            "city": pick(w.CITIES),
            "job": pick(w.JOBS),
            "member": random.random() < 0.5,
        },
        {
            "item": pick(w.THINGS),
            "colour": pick(w.COLOURS),
            "price": random.randint(1, 99),
            "tags": random.sample(w.ADJECTIVES, 2),
        },
        {
            "day": pick(w.DAYS),
            "weather": pick(w.WEATHER),
            "degrees": random.randint(-9, 35),
            "place": pick(w.CITIES),
        },
        {
            "姓名": pick(w.ZH_NAMES),
            "城市": pick(w.ZH_CITIES),
            "职业": pick(w.ZH_JOBS),
            "年龄": random.randint(5, 90),
        },
        {
            "id": random.randint(1, 999),
            "from": pick(w.CITIES),
            "to": pick(w.CITIES),
            "stops": random.sample(w.CITIES, random.randint(0, 3)),
        },
    ]
    chosen = random.sample(rows, random.randint(1, 2))
    indent = random.choice((None, 2))
    return "\n".join(json.dumps(row, ensure_ascii=False, indent=indent) for row in chosen)


def pair(random: Random) -> tuple[int, int]:
    """Two numbers of a small sum."""
    return random.randint(0, 20), random.randint(0, 20)


def sum_line(a: int, b: int) -> str:
    """`a + b = c`."""
    return f"{a} + {b} = {a + b}"
