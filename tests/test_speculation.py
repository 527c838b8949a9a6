"""Speculation: the same answers token by token, costs that were measured, and a verdict that stands
on both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.measure.parting import Parting, parting
from packager.measure.speculation import NGRAM, WIDTHS, Costs, Lookup, said, way
from packager.package import manifest
from packager.pipeline import speculation_stage
from packager.plan.drafting import taken
from packager.process import run_job
from packager.records.speculation import Speculation
from packager.shape import Shape, heads
from packager.shipping.server.settings import Settings
from targets.llama_cpp import LlamaCpp
from targets.llama_cpp.memory import activations
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.rounding import differ_by_rounding

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
DRAFT = REPOSITORY / "tests" / "models" / "tiny-qwen3-draft"
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
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(DRAFT, tmp_path_factory.mktemp("draft") / "model.gguf", "Q8_0")


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
def test_a_smaller_model_drafts_what_the_model_says(session: Any, draft: Path) -> None:
    proposer = session.proposer(way("draft", str(draft)))
    accepted = drafted = 0
    for text in ("def add(a, b):\n    return", '{"name": "Ada", "age":'):
        prompt = session.encode(text)
        plain = session.generate(prompt, WANTED, lambda _: None, stop=False)
        said: list[int] = []
        answer = session.speculate(
            prompt, WANTED, lambda tokens: proposer(tokens, 4), said.append, stop=False
        )
        assert said == answer.tokens
        assert answer.tokens == plain or differ_by_rounding(session, prompt, plain, answer.tokens)
        accepted, drafted = accepted + answer.accepted, drafted + answer.drafted
    # Of 2,048 tokens by chance one.
    assert accepted / drafted > 0.3


@pytest.mark.engine
def test_a_draft_of_another_vocabulary_is_refused(tmp_path: Path, session: Any) -> None:
    other = build(checkpoint(tmp_path / "ck", SHAPES["qwen2"]), tmp_path / "other.gguf", "Q8_0")
    with pytest.raises(PackError, match="another vocabulary") as caught:
        session.proposer(way("draft", str(other)))
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.engine
@pytest.mark.parametrize("name", ["qwen3_5_text", "qwen3_next"])
def test_a_hybrid_takes_back_what_was_wrong_with_its_recurrent_state(
    name: str, tmp_path: Path
) -> None:
    from targets.llama_cpp.session import Session

    shape = replace(SHAPES[name], draft_layers=heads.LAYERS)
    model = build(checkpoint(tmp_path / "ck", shape), tmp_path / "hybrid.gguf", "BF16", heads=True)
    prompt = list(range(5, 25))
    # With copies that the engine keeps, and with one that is made before every step.
    for rollback in (9, 0):
        asked = {"how": "mtp", "rollback": rollback}
        settings = {"context": 128, "kv": "f16", "threads": 1, "speculation": asked}
        session = Session(str(model), settings)
        # What is taken back leaves no trace: to the bit the same, whatever it was.
        first, second = (_after_taking_back(session, prompt, wrong) for wrong in (7, 900))
        assert first == second
        plain = session.generate(prompt, 24, lambda _: None, stop=False)
        told = [*prompt, *plain]
        proposer = session.proposer(asked)

        def half(tokens: Sequence[int], told: list[int] = told) -> Sequence[int]:
            following = told[len(tokens) : len(tokens) + 6]
            return [*following[:3], *((token + 1) % 1000 for token in following[3:])]

        for draft, least in ((half, 5), (lambda tokens: proposer(tokens, 3), 0)):  # noqa: B023
            answer = session.speculate(prompt, 24, draft, stop=False)
            if not differ_by_rounding(session, prompt, plain, answer.tokens):
                assert answer.tokens == plain and answer.accepted >= least
        session.close()


def _after_taking_back(session: Any, prompt: Sequence[int], wrong: int) -> bytes:
    """The logits behind a prompt and four tokens, with wrong ones put and taken back twice."""
    session.keep_until(0)
    session.feed_at(prompt, 0)
    checks = session.checks()
    position = len(prompt)
    with session.stepping():
        for right in (11, 12), (13,):
            checks.put([*right, *range(wrong, wrong + 4)], position)
            position += len(right)
            checks.take_back(position)
        checks.put([14], position)
    logits: bytes = checks.logits(0).tobytes()
    return logits


class RowsInFours:
    """Logits of three tokens that a step of four full rows computes a little differently, as an
    engine does whose products take four rows at once."""

    def logits_after(self, prompt: Any, tokens: Any, at_once: int) -> Any:
        full = at_once >= 4 and len(tokens) >= at_once
        return np.array([0.0, 1.0, 1.01 if full else 0.99], np.float32)


def test_rounding_is_found_however_few_tokens_stand_behind_the_prompt() -> None:
    prompt, plain = list(range(20)), [1, 1, 1, 1, 1]
    for at in range(5):
        parted = parting(RowsInFours(), prompt, plain, [*plain[:at], 2, *plain[at + 1 :]])
        assert parted is not None and parted.at == at
        assert parted.rounding == pytest.approx(0.02, abs=1e-6) and parted.tie
    # What lies further apart than rounding moves it is another answer.
    wrong = parting(RowsInFours(), prompt, plain, [0, 1, 1, 1, 1])
    assert wrong is not None and not wrong.tie


@pytest.mark.engine
def test_where_answers_part_it_says_how_far_apart_the_tokens_are(session: Any) -> None:
    prompt = session.encode("Once upon a time")
    plain = session.generate(prompt, 8, lambda _: None, stop=False)
    assert parting(session, prompt, plain, plain) is None
    for at in (0, 5):
        unlikely = int(session.logits_after(prompt, plain[:at], 1).argmin())
        parted = parting(session, prompt, plain, [*plain[:at], unlikely, *plain[at + 1 :]])
        assert parted is not None and parted.at == at and not parted.tie
        assert 0 <= parted.rounding < 1 < parted.gap
    short = parting(session, prompt, plain, plain[:5])
    assert short is not None and short.at == 5 and not short.tie
    assert short.as_dict()["gap"] is None
    assert Parting(3, 0.004, 0.003).tie and not Parting(3, 0.4, 0.003).tie
    assert Parting(3, -0.004, 0.003).tie and not Parting(3, -0.4, 0.003).tie


@pytest.mark.engine
def test_a_draft_takes_the_memory_that_is_planned_for_it(tmp_path: Path) -> None:
    small = Shape("qwen3", 64, 1, 1, 1, 64, 64, 32768, True, False, True, 8192)
    wide = Shape("qwen3", 1024, 2, 8, 4, 128, 4096, 32768, True, False, True, 8192)
    model, other = (
        build(checkpoint(tmp_path / f"{name}-ck", shape), tmp_path / f"{name}.gguf", "Q8_0")
        for name, shape in (("small", small), ("wide", wide))
    )
    runtime, context = LlamaCpp(), 1024
    recipe = runtime.recipe("Q8_0")
    peaks = []
    for asked in (way("lookup"), way("draft", str(other))):
        work = run_job(
            "packager.measure.speculation:measure",
            {
                "session": runtime.session,
                "artifact": str(model),
                "settings": {"context": context, "kv": "f16", "threads": 1},
                "asked": asked,
                "texts": None,
            },
            tmp_path / "log",
        )
        while True:
            try:
                next(work)
            except StopIteration as stop:
                peaks.append(stop.value.value["peak_memory_bytes"])
                break
    footprint = runtime.footprint(wide, recipe, context)
    planned = taken(runtime, small, recipe, context, "draft", footprint)
    alone = taken(runtime, small, recipe, context, "lookup")
    # The measurement's prompt fills half of a batch.
    unused = activations(wide, context) - activations(wide, context, 256)
    expected = planned.total - alone.total - unused
    assert peaks[1] - peaks[0] == pytest.approx(expected, rel=0.06)


@pytest.mark.engine
def test_heads_that_were_fitted_draft_what_the_model_says(tmp_path: Path) -> None:
    from targets.llama_cpp.session import Session
    from training.heads import fit, sharpen

    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_5_text"], dtype="F32")
    sharpen(source)
    prompts = [[seed, seed + 300, seed + 600] for seed in range(12)]
    fit(source, build(source, tmp_path / "plain.gguf", "BF16"), prompts, 24)
    model = build(source, tmp_path / "heads.gguf", "BF16", heads=True)
    asked = way("mtp")
    settings = {"context": 64, "kv": "f16", "threads": 1, "speculation": asked}
    session = Session(str(model), settings)
    proposer, prompt = session.proposer(asked), [700, 800, 900]
    plain = session.generate(prompt, WANTED, lambda _: None, stop=False)
    answer = session.speculate(prompt, WANTED, lambda tokens: proposer(tokens, 3), stop=False)
    session.close()
    assert answer.tokens == plain and len(set(plain)) > WANTED // 2
    # Of 1,024 tokens by chance one.
    assert answer.accepted / answer.drafted > 0.5


@pytest.mark.engine
def test_a_build_measures_it_and_packages_the_draft_that_pays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "package"
    flags = ["--target", "laptop-cpu", "--weights", str(TINY), "--context", "512"]
    more = ["--recipe", "gguf:Q8_0", "--speculate", f"draft:{DRAFT}", "--out", str(out)]
    record = speculation_stage.record

    def paying(*given: Any) -> Speculation:
        # Whether it pays is this machine's business.
        plan, entry, draft = given
        seen = Speculation.from_json(entry.facts)
        assert seen.pays is (seen.same and (seen.speed_up or 0) >= 1.05)
        facts = {**entry.facts, "pays": True, "same": True}
        return record(plan, replace(entry, facts=facts), draft)

    monkeypatch.setattr(speculation_stage, "record", paying)
    assert main(["build", *flags, *more]) == ExitCode.DONE
    contents = manifest.read(out).contents
    found = contents.speculation
    assert found is not None and found.how == "draft" and found.draft is not None
    assert [step.drafted for step in found.steps] == list(WIDTHS)
    assert all(step.check_ms and step.check_ms > 0 for step in found.steps)
    assert {kind.name for kind in found.kinds} >= {"code", "json", "dialogue", "tool_calls"}
    assert found.acceptance is not None and found.acceptance > 0.1
    assert found.draft.files == ("draft/model.gguf",) and (out / found.draft.files[0]).is_file()
    assert (out / "draft-licence" / "NOTICE").is_file()
    assert found.memory_bytes is not None and found.memory_bytes >= found.draft.memory_bytes > 0
    assert contents.predicted is not None and contents.predicted.footprint is not None
    footprint = contents.predicted.footprint
    assert footprint.drafting is not None and footprint.drafting.total == found.memory_bytes
    assert footprint.peak is not None and footprint.peak_alone is not None
    assert footprint.peak == footprint.peak_alone + found.memory_bytes
    assert found.peak_memory_bytes is not None and found.peak_memory_bytes > found.memory_bytes
    assert found.sentence() in capsys.readouterr().out
    readme = (out / "README.md").read_text()
    assert "--model model/model.gguf" in readme and "--model-draft draft/model.gguf" in readme
    assert "llama-gguf-split" not in readme
    assert found.sentence() in (out / "MODEL_CARD.md").read_text()
    assert main(["verify", str(out)]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["run", str(out), "Say hello", "--max-tokens", "24"]) == ExitCode.DONE
    speculated = capsys.readouterr().out
    monkeypatch.setattr("packager.measure.session_settings.speculation_of", lambda *_: None)
    assert main(["run", str(out), "Say hello", "--max-tokens", "24"]) == ExitCode.DONE
    assert capsys.readouterr().out == speculated


@pytest.mark.engine
@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 0.8, "seed": 5.0}])
def test_a_server_that_drafts_says_the_same(
    sampling: dict[str, float], trained: Path, draft: Path, tmp_path: Path
) -> None:
    from targets.llama_cpp.serving import Engine

    known = Settings("x", "x", trained, "", 512, "f16", "CPU", frozenset(), (), {}, None)
    options = {"context": 512, "kv": "f16", "threads": 1}
    drafting = {**way("draft", str(draft)), "drafted": 4}
    plain = Engine(known, options, tmp_path / "log")
    speculating = Engine(known, {**options, "speculation": drafting}, tmp_path / "log")
    ids = plain.encode("def add(a, b):\n    return a + b\n\ndef")

    def told(engine: Engine, prompt: list[int], most: int, until: int) -> list[int]:
        said: list[int] = []

        def on_token(token: int) -> bool:
            said.append(token)
            return len(said) < until

        engine.generate(prompt, most, sampling, None, on_token)
        return said

    first = told(plain, ids, WANTED, 99)
    assert told(speculating, ids, WANTED, 99) == first
    # Ended by the client among drafted tokens, and gone on with from what is kept.
    for until in (3, 7, 12):
        assert told(speculating, ids, WANTED, until) == first[:until]
        longer = [*ids, *first[:until], *ids[:4]]
        assert told(speculating, longer, 8, 99) == told(plain, longer, 8, 99)
