"""`qwen-pack fit` where texts become vectors or scores: nothing is said of answers, which none
gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from packager import catalog
from packager.cli import main
from packager.errors import ExitCode
from packager.need.workload import merge
from packager.select import Candidate, candidates
from targets import registry

EMBED = ("--target", "android-onnx", "--use-case", "embed")


def fit(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.DONE) -> str:
    """What `fit` prints on both streams."""
    assert main(["fit", *arguments]) == code
    said = capsys.readouterr()
    return said.out + said.err


def ranked(device: str, **wish: Any) -> list[Candidate]:
    """Candidates that pass for certain, without those that come last, best first."""
    target = registry.target(device)
    found = candidates(
        target, merge(wish, target.workload), catalog.load(), registry.runtimes(), every=True
    )
    return [one for one in found if one.sure and not one.last]


def test_steps_compare_rates_of_texts_and_propose_no_draft(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = fit(capsys, *EMBED, "--model", "Qwen3-Embedding-4B", "--steps")
    said += fit(capsys, *EMBED, "--steps")
    assert "tok/s" not in said and "Draft" not in said and "--speculate" not in said
    assert " texts/s, MTEB (Multilingual) +" in said and "0.252 texts/s" in said
    assert main(["fit", *EMBED, "--model", "Qwen3-Embedding-4B", "--json"]) == ExitCode.DONE
    assert "drafts" not in json.loads(capsys.readouterr().out)


def test_a_price_is_that_of_a_million_tokens_read(capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("fit", "--target", "laptop-cpu", "--use-case", "embed", "--price-per-hour", "1")
    assert main([*ask, "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    speed, cost = found["chosen"]["forecast"], found["chosen_cost_per_million"]
    an_hour = 1e6 / 3600
    assert cost["cost"] == pytest.approx(an_hour / speed["prefill_tps"])
    assert cost["low"] == pytest.approx(an_hour / speed["prefill_high"])
    assert cost["high"] == pytest.approx(an_hour / speed["prefill_low"])
    assert " A million tokens of texts cost 0." in fit(capsys, *ask[1:])


@pytest.mark.parametrize(
    "words",
    [
        ("--min-decode-tps", "5"),
        ("--tokens-per-day", "1000"),
        ("--price-per-hour", "1", "--max-cost-per-million", "2"),
    ],
)
@pytest.mark.parametrize("devices", [("laptop-cpu",), ("laptop-cpu", "rtx-4090")])
@pytest.mark.parametrize("case", ["embed", "rerank"])
def test_a_limit_on_answers_is_refused_and_the_one_on_texts_is_named(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], devices: tuple[str, ...], case: str
) -> None:
    named = [word for name in devices for word in ("--target", name)]
    said = fit(capsys, *named, "--use-case", case, *words, code=ExitCode.USAGE)
    flag = [word for word in words if word.startswith("--")][-1]
    assert f"The use case '{case}' gives no answers, so {flag} has no effect." in said
    assert "--documents-per-second" in said


def test_no_least_rate_of_answers_is_no_limit(capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys, *EMBED, "--min-decode-tps", "0")


@pytest.mark.parametrize(("prefer", "most"), [("speed", "reads fastest"), ("cost", "per text")])
def test_the_fastest_and_the_cheapest_are_those_that_read_fastest(
    capsys: pytest.CaptureFixture[str], prefer: str, most: str
) -> None:
    found = ranked("android-16gb", use_case="embed", prefer=prefer)
    fastest = max(one.forecast.prefill_tps for one in found)
    assert found[0].forecast.prefill_tps == pytest.approx(fastest, rel=1e-3)
    assert found[0].machine_seconds == pytest.approx(512 / fastest, rel=1e-3)
    ask = ("--target", "laptop-cpu", "--use-case", "embed", "--prefer", prefer)
    assert most in fit(capsys, *ask)


def test_an_embedder_is_no_reranker_even_where_it_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = ("--target", "laptop-cpu", "--use-case", "rerank", "--model", "Qwen3-Embedding-0.6B")
    said = fit(capsys, *ask, code=ExitCode.NOTHING_FITS)
    assert "task: needs a model made for reranking, has a model made for embedding" in said


def test_a_vector_that_is_too_long_can_be_shortened_by_the_flag_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = ("--target", "laptop-cpu", "--use-case", "embed")
    said = fit(capsys, *ask, "--dimension", "100000", code=ExitCode.NOTHING_FITS)
    assert "it fits: --dimension 2560" in said
    assert "Qwen3-Embedding-4B" in fit(capsys, *ask, "--dimension", "2560")


@pytest.mark.parametrize("case", ["vision", "audio"])
def test_the_cheapest_answer_about_a_picture_or_a_sound_counts_its_encoder(case: str) -> None:
    best = ranked("edge-gpu", use_case=case, prefer="cost")[0]
    speed = best.forecast
    assert speed.encode is not None
    workload = merge({"use_case": case}, registry.target("edge-gpu").workload)
    rest = best.machine_seconds - speed.encode.value / 1000 - workload.prompt / speed.prefill_tps
    assert rest == pytest.approx(338 / speed.decode_tps, rel=0.01)
