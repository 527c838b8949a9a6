"""Speculation: the same answers token by token, costs that were measured, and a verdict that stands
on both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.measure.speculation import NGRAM, WIDTHS, Costs, Lookup, said
from packager.package import manifest
from packager.records.speculation import Speculation
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.rounding import differ_by_rounding

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
WANTED = 40


@given(st.floats(0, 1), st.integers(1, 8), st.floats(0.5, 9), st.floats(0, 1))
def test_break_even_is_where_a_step_is_as_fast_as_decoding(
    acceptance: float, drafted: int, check: float, draft: float
) -> None:
    costs = Costs(1.0, draft, {drafted: check})
    edge = costs.break_even(drafted)
    fast = costs.speed_up(acceptance, drafted) >= 1
    if edge is None:
        assert not fast
    elif abs(acceptance - edge) > 1e-6:
        assert fast == (acceptance > edge)
    assert 1 <= said(acceptance, drafted) <= drafted + 1


def test_a_check_that_costs_what_a_token_costs_pays_from_the_first_accepted_one() -> None:
    free = Costs(10.0, 0.0, {1: 10.0, 4: 10.0})
    assert free.break_even(4) == pytest.approx(0, abs=1e-9)
    assert free.speed_up(1.0, 4) == pytest.approx(5)
    assert free.best(0.9) == 4
    dear = Costs(10.0, 0.0, {1: 12.0, 4: 60.0})
    assert dear.break_even(4) is None and dear.best(0.5) == 1
    assert dear.break_even(1) == pytest.approx(0.2)


def test_prompt_lookup_takes_what_followed_the_last_time() -> None:
    lookup = Lookup(2, 3)
    assert list(lookup([1, 2, 3, 4, 5, 1, 2])) == [3, 4, 5]
    assert list(lookup([1, 2, 8, 1, 2, 9, 1, 2])) == [9, 1, 2]
    assert list(lookup([1, 2, 3])) == [] and list(lookup([1])) == []
    assert list(lookup([7, 7, 7])) == [7]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TINY, tmp_path_factory.mktemp("trained") / "model.gguf", "Q8_0")


@pytest.fixture(scope="module")
def session(trained: Path) -> Iterator[Any]:
    from targets.llama_cpp.session import Session

    loaded = Session(str(trained), {"context": 512, "kv": "f16", "threads": 1})
    yield loaded
    loaded.close()


@pytest.mark.engine
@pytest.mark.parametrize("text", ["def add(a, b):\n    return a + b\n\n" * 4, "Once upon a time"])
def test_answers_are_the_same_whatever_is_drafted(text: str, session: Any) -> None:
    prompt = session.encode(text)
    plain = session.generate(prompt, WANTED, lambda _: None, stop=False)
    told = [*prompt, *plain]

    def right(tokens: Sequence[int]) -> Sequence[int]:
        return told[len(tokens) : len(tokens) + 4]

    def wrong(tokens: Sequence[int]) -> Sequence[int]:
        return [(token + 1) % 2000 for token in right(tokens)]

    def half(tokens: Sequence[int]) -> Sequence[int]:
        following = right(tokens)
        return [*following[:2], *((token + 1) % 2000 for token in following[2:])]

    for draft, accepted in ((right, 1.0), (wrong, 0.0), (half, 0.5)):
        answer = session.speculate(prompt, WANTED, draft, stop=False)
        if differ_by_rounding(session, prompt, plain, answer.tokens):
            continue
        assert answer.tokens == plain
        assert answer.accepted / answer.drafted == pytest.approx(accepted, abs=0.05)
        assert answer.steps + answer.accepted == WANTED - 1
    looked = session.speculate(prompt, WANTED, Lookup(NGRAM, 4), stop=False)
    assert looked.tokens == plain or differ_by_rounding(session, prompt, plain, looked.tokens)
    assert session.speculate(prompt, WANTED, lambda _: (), stop=False).drafted == 0


@pytest.mark.engine
def test_an_answer_ends_where_the_model_ends_it_also_among_drafted_tokens(session: Any) -> None:
    end = min(session.ends())
    prompt = session.encode("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    plain = session.generate(prompt, 64, lambda _: None)
    told = [*prompt, *plain, end, end, end, end]
    answer = session.speculate(prompt, 64, lambda tokens: told[len(tokens) : len(tokens) + 4])
    assert answer.tokens == plain or differ_by_rounding(session, prompt, plain, answer.tokens)


@pytest.mark.engine
def test_a_recurrent_state_takes_nothing_back_and_says_so(tmp_path: Path) -> None:
    from targets.llama_cpp.session import Session

    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_5_text"])
    model = build(source, tmp_path / "hybrid.gguf", "Q8_0")
    session = Session(str(model), {"context": 128, "kv": "f16", "threads": 1})
    with pytest.raises(PackError, match="cannot take back") as caught:
        session.speculate([5, 6, 7, 8], 8, lambda _: [9, 9, 9], stop=False)
    assert caught.value.exit_code is ExitCode.USAGE
    session.close()


@pytest.mark.engine
def test_a_build_measures_it_and_keeps_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "package"
    flags = ["--target", "laptop-cpu", "--weights", str(TINY), "--context", "512"]
    more = ["--recipe", "gguf:Q8_0", "--speculate", "lookup", "--out", str(out)]
    assert main(["build", *flags, *more]) == ExitCode.DONE
    found = manifest.read(out).contents.speculation
    assert found is not None and found.how == "lookup" and found.same is not None
    assert [step.drafted for step in found.steps] == list(WIDTHS)
    assert all(step.check_ms and step.check_ms > 0 for step in found.steps)
    assert {kind.name for kind in found.kinds} >= {"code", "json", "dialogue"}
    assert found.pays is (found.same and found.speed_up is not None and found.speed_up >= 1.05)
    assert found.sentence() in capsys.readouterr().out
    assert ("ngram-simple" in (out / "README.md").read_text()) is found.pays
    assert found.sentence() in (out / "MODEL_CARD.md").read_text()


def test_the_verdict_says_its_figure() -> None:
    step = {"drafted": 4, "check_ms": 30.0, "break_even": 0.61}
    costs = {"how": "lookup", "ngram": 3, "decode_ms": 20.0, "draft_ms": 0.0, "steps": [step]}
    known = {"drafted": 4, "acceptance": 0.55, "speed_up": 0.93, "same": True, "pays": False}
    assert "pays from 61% of drafted tokens accepted" in Speculation.from_json(costs).sentence()
    lost = Speculation.from_json({**costs, **known}).sentence()
    assert "does not pay" in lost and "55%" in lost and "61%" in lost and "0.93" in lost
    gained = Speculation.from_json({**costs, **known, "speed_up": 1.4, "pays": True}).sentence()
    assert "pays" in gained and "1.40" in gained
    other = Speculation.from_json({**costs, **known, "same": False}).sentence()
    assert "other tokens" in other


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "onnx:int8_sym_b32", "--speculate", "lookup"], "is not measured here"),
        (["--recipe", "gguf:Q8_0", "--speculate", "magic"], "magic"),
    ],
)
def test_what_cannot_be_speculated_is_refused(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["build", "--target", "laptop-cpu", "--weights", str(TINY), "--context", "256"]
    assert main([*target, *flags, "--out", str(tmp_path / "p")]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
