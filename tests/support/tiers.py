"""Two tiers of the suite: `make test` has a test of every behaviour, and `make test-thorough` the
variants of what a cheaper test proves on one representative.

Marked `thorough` is a case of a test whose other cases are not, or a whole test, with the name of the
tests that stand for it: `@pytest.mark.thorough("test_that_stays")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

MARK = "thorough"


def thorough(*values: Any, id: str | None = None) -> Any:
    """A `pytest.param` that only the thorough tier runs."""
    return pytest.param(*values, marks=getattr(pytest.mark, MARK), id=id)


def is_thorough(item: Any) -> bool:
    """Whether only the thorough tier runs this test."""
    return item.get_closest_marker(MARK) is not None


def unrepresented(items: Iterable[Any]) -> list[str]:
    """Tests that the fast tier has no case of and that name no test which stands for them."""
    fast: dict[str, bool] = {}
    for item in items:
        marks = list(item.iter_markers(MARK))
        stands = not marks or any(mark.args for mark in marks)
        test = item.nodeid.partition("[")[0]
        fast[test] = fast.get(test, False) or stands
    return [test for test, stands in fast.items() if not stands]
