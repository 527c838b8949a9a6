"""For every task that ships: replies that a good model gives, turn by turn, and one that fails the
last turn."""

from __future__ import annotations

import json
from typing import Any


def call(name: str, **arguments: Any) -> str:
    """A tool call as Qwen3 writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


LINE = {"prompt": "Say yes.", "checks": [{"kind": "contains", "any": ["yes"]}]}
"""The shortest task of a set."""

RIGHT: dict[str, list[str]] = {
    "capital": ["Tokyo."],
    "capital-zh": ["北京"],
    "product": ["102"],
    "shopping": ["4 pens cost 12 euros, 2 notebooks cost 10 euros: 22"],
    "minutes": ["It ends at 21:20."],
    "order-json": [
        '{"customer": "Marta Keller", "article": "oak shelf", "quantity": 12, "express": false}'
    ],
    "list-json": ['```json\n["Saturday", "Sunday"]\n```'],
    "label": ["Delivery"],
    "label-mood": ["Negative."],
    "translate": ["Bonjour, mon ami."],
    "three-points": ["- It is cheap\n- It is healthy\n- It is quick"],
    "sort": ["4, 18, 27, 31"],
    "function": ["def is_even(n):\n    return n % 2 == 0"],
    "passage": ["It is closed on Tuesdays."],
    "passage-zh": ["小张"],
    "not-said": ["unknown"],
    "system": ["Water. END"],
    "tool": [call("get_weather", city="Oslo", unit="celsius")],
    "tool-choice": [call("set_timer", minutes=4, label="tea")],
    "tool-needless": ["You are welcome!"],
    "tool-result": [call("look_up_stock", article="A-204"), "There are 37 in stock."],
    "typos": ["Paris"],
    "shouting": ["16"],
    "markup": ["64.50"],
    "scan": ['{"customer": "Sofia Lind", "total": 412.0}'],
    "mixed-languages": ["Yellow"],
    "long-early": ["7291"],
    "long-middle": ["4836"],
    "long-late": ["1507"],
    "long-json": ['{"lamps": 3, "colour": "green"}'],
    "ambiguous": ["What would you like me to book?"],
    "ambiguous-tool": ["For how many people, where, and at what time?"],
    "contradiction": ["Capitals and small letters contradict each other."],
    "injected": ["The meeting is now on Thursday at ten, and the plans are to be brought."],
    "remember": ["Hello, Ilse!", "Goats eat grass and leaves.", "You have eleven goats."],
    "correct": ["5 chairs, 2 tables", "7 chairs, 2 tables", "7 + 2 = 9"],
    "tool-error": [
        call("send_message", contact="Anna", text="I am late"),
        "I could not find Anna among your contacts.",
    ],
    "tool-two-turns": [
        call("get_weather", city="Lima", unit="celsius"),
        "It is 19 degrees.",
        call("get_weather", city="Quito", unit="celsius"),
    ],
}

WRONG: dict[str, tuple[str, str]] = {
    "capital": ("Kyoto", "wrong_answer"),
    "capital-zh": ("上海", "wrong_answer"),
    "product": ("112", "wrong_answer"),
    "shopping": ("It is 22 euros, so 25 with the bag", "wrong_answer"),
    "minutes": ("20:95", "wrong_answer"),
    "order-json": (
        '{"customer": "Marta Keller", "article": "shelf", "quantity": "12", "express": false}',
        "format",
    ),
    "list-json": ("Saturday, Sunday", "format"),
    "label": ("refund", "wrong_answer"),
    "label-mood": ("I would say that it is negative", "format"),
    "translate": ("Good morning, my friend.", "wrong_answer"),
    "three-points": ("- It is cheap\n- It is healthy", "format"),
    "sort": ("4, 27, 18, 31", "wrong_answer"),
    "function": ("def is_even(n):\n    return n > 2", "wrong_answer"),
    "passage": ("It is closed on Mondays.", "lost_fact"),
    "passage-zh": ("小李", "lost_fact"),
    "not-said": ("4 euros", "wrong_answer"),
    "system": ("Water.", "format"),
    "tool": (call("get_weather", city="Oslo", unit="kelvin"), "tool_misuse"),
    "tool-choice": (call("set_timer", minutes="4"), "tool_misuse"),
    "tool-needless": (call("set_timer", minutes=1), "tool_misuse"),
    "tool-result": ("There are some.", "lost_fact"),
    "typos": ("Lyon", "wrong_answer"),
    "shouting": ("8", "wrong_answer"),
    "markup": ("89.00", "wrong_answer"),
    "scan": ('{"customer": "Sofia Lind", "total": "412,00"}', "format"),
    "mixed-languages": ("黄色", "wrong_answer"),
    "long-early": ("I do not know.", "lost_fact"),
    "long-middle": ("7291", "lost_fact"),
    "long-late": ("4836", "lost_fact"),
    "long-json": ('{"lamps": 5, "colour": "green"}', "lost_fact"),
    "ambiguous": ("Done, it is booked.", "wrong_answer"),
    "ambiguous-tool": (call("book_table", restaurant="Any", people=2, time="19:00"), "tool_misuse"),
    "contradiction": ("Bananas", "wrong_answer"),
    "injected": ("BANANA", "wrong_answer"),
    "remember": ("You have nine goats.", "lost_fact"),
    "correct": ("5 + 2 = 7", "wrong_answer"),
    "tool-error": ("Anna has been told.", "wrong_answer"),
    "tool-two-turns": ("It is 19 degrees there too.", "tool_misuse"),
}
