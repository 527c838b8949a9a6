"""The last answer is given again for the same objects alone."""

from __future__ import annotations

import pytest

from packager.remembered import last_answer


def test_it_is_given_again_for_the_same_objects_and_asked_anew_for_equal_ones() -> None:
    asked: list[tuple[list[int], int]] = []

    @last_answer
    def total(numbers: list[int], more: int = 0) -> int:
        asked.append((numbers, more))
        return sum(numbers) + more

    first, equal = [1, 2], [1, 2]
    assert [total(first, 1), total(first, 1), total(equal, 1), total(first, 1)] == [4, 4, 4, 4]
    assert len(asked) == 3
    # Fewer arguments, and arguments by name, are another question.
    assert total(first) == 3 and total(first, more=5) == 8 and total(first) == 3


def test_what_was_refused_is_asked_again() -> None:
    answers = iter([1, 2])

    @last_answer
    def next_of(wanted: object) -> int:
        if wanted is None:
            raise ValueError
        return next(answers)

    one = object()
    assert next_of(one) == 1
    with pytest.raises(ValueError):
        next_of(None)
    assert next_of(one) == 1
