"""Packages side by side: what is ranked, what is not and why, who is on the front, and what answers
cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.records import Behaviour, Contents, Measurement
from packager.report.compare import notes, rows
from packager.report.pareto import standings
from packager.report.prices import Prices
from tests.support.contents import contents_of
from tests.support.make_package import body, write_package

HERE, THERE = {"processor": "a laptop's", "cores": 8}, {"processor": "a board's", "cores": 4}
NOBODY = Prices()
TEN = Measurement(decode_tps=10)


def data(
    memory: float | None = 1e9, speed: float | None = 10.0, machine: Any = HERE, **others: Any
) -> dict[str, Any]:
    measured = {
        "peak_memory_bytes": None if memory is None else int(memory),
        "decode_tps": speed,
        "machine": machine,
        "prompt_tokens": 100,
        "ttft_ms": 50.0,
    }
    return {
        "name": "n",
        "recipe": {"id": "gguf:Q8_0"},
        "variant": {"repo_id": "mine/model"},
        "source": {"kind": "local"},
        "measured": None if memory is None else measured,
        "measurements": [],
        **others,
    }


def typed(manifests: Sequence[dict[str, Any]]) -> list[Contents]:
    return [contents_of(each) for each in manifests]


def best(manifests: list[dict[str, Any]], prices: Prices = NOBODY) -> dict[str, int | None]:
    return {row.label: row.best for row in rows(typed(manifests), prices)}


def said(*manifests: dict[str, Any], prices: Prices = NOBODY) -> str:
    return "\n".join(
        notes([f"p{number}" for number in range(len(manifests))], typed(manifests), prices)
    )


def test_the_best_of_a_row_is_the_least_or_the_most_as_the_figure_means_it() -> None:
    found = best([data(1e9, 10), data(2e9, 20)])
    assert (found["peak memory"], found["decode"], found["first token"]) == (0, 1, None)


def test_a_difference_inside_the_noise_is_called_so_and_nobody_is_the_best_by_it() -> None:
    text = {"name": "t", "sha256": "0" * 64}
    lost = {"tokens": 1000, "text": text, "kl_error": 0.001}
    near = [data(quality={**lost, "kl_mean": 0.020}), data(quality={**lost, "kl_mean": 0.0225})]
    assert best(near)["divergence"] is None
    assert "divergence: the difference is inside the noise" in said(*near)
    apart = [near[0], data(quality={**lost, "kl_mean": 0.023})]
    assert best(apart)["divergence"] == 0 and "inside the noise" not in said(*apart)
    silent = {"tokens": 1000, "text": text}
    unknown = [data(quality={**silent, "kl_mean": value}) for value in (0.020, 0.021)]
    assert best(unknown)["divergence"] == 0, "nothing is known of its noise"
    rates = [data(), data(speed=10.4)]
    for one in rates:
        one["measured"]["spread"] = 0.1
    assert best(rates)["decode"] is None and "decode: the difference" in said(*rates)


def test_figures_of_different_machines_stand_unranked_and_that_is_said() -> None:
    pair = [data(artifact_bytes=5), data(2e9, 5, THERE, artifact_bytes=7)]
    assert best(pair)["decode"] is None and best(pair)["peak memory"] is None
    assert best(pair)["model files"] == 0
    assert [one.front for one in standings(typed(pair))[0]] == [True, True]
    assert "Measured on different machines (p0 on a laptop's; p1 on a board's)" in said(*pair)
    assert "different machines" not in said(data(), data())


def test_the_front_says_that_it_takes_figures_which_are_not_ranked() -> None:
    as_they_are = "It takes figures as they are, those that are not ranked above as well."
    assert as_they_are not in said(data(), data(2e9, 20))
    assert as_they_are in said(*(data(workload={"context": size}) for size in (2048, 4096)))
    disturbed = data(2e9, 20)
    disturbed["measured"]["noisy"] = True
    assert as_they_are in said(data(), disturbed)


def test_two_machines_with_one_processor_are_still_two() -> None:
    assert best([data(), data(2e9, machine={**HERE, "cores": 4})])["peak memory"] is None


def test_what_was_not_measured_is_a_dash_off_the_front_with_its_reason() -> None:
    absent = data(None, artifact_bytes=3, not_measured="this machine has no CUDA")
    found = {row.label: row for row in rows(typed([data(), absent]))}
    assert found["decode"].texts == ("10.0 tok/s", "–") and found["decode"].best is None
    assert found["Pareto front"].texts == ("yes", "–")
    assert "p1 was not measured: this machine has no CUDA." in said(data(), absent)
    assert "Pareto" not in said(data(), absent)


def test_first_tokens_behind_prompts_of_different_length_are_not_ranked() -> None:
    longer = data()
    longer["measured"] = {**longer["measured"], "prompt_tokens": 2000, "ttft_ms": 900.0}
    assert best([data(), longer])["first token"] is None
    assert "different length" in said(data(), longer)


def test_memory_with_pictures_of_different_sizes_is_not_ranked() -> None:
    large, small = data(memory=2e9), data(memory=1e9)
    large["measured"] |= {"image_tokens": 1024, "image_ttft_ms": 900.0}
    small["measured"] |= {"image_tokens": 576, "image_ttft_ms": 300.0}
    ranked = best([large, small])
    assert ranked["peak memory"] is None and ranked["first token with a picture"] is None
    assert "with a picture or a sound of the same size" in said(large, small)
    small["measured"]["image_tokens"] = 1024
    ranked = best([large, small])
    assert ranked["peak memory"] == 1 and ranked["first token with a picture"] == 1
    assert "of the same size" not in said(large, small)


def test_noise_random_weights_and_another_place_are_said_by_name() -> None:
    odd = data(source={"kind": "dummy"})
    odd["measured"] = {
        **odd["measured"],
        "noisy": True,
        "place": {"on_device": False, "why": "this is no phone"},
    }
    text = said(data(), odd)
    for words in (
        "p1 has random weights",
        "p1 has a measurement that is noisy",
        "p1 was not measured on its device: this is no phone.",
    ):
        assert words in text
    assert "p0 " not in text


def test_a_package_that_another_one_beats_is_named_with_the_one_that_beats_it() -> None:
    three = [data(1e9, 10), data(2e9, 20), data(3e9, 15)]
    assert [one.beaten_by for one in standings(typed(three))[0]] == [(), (), (1,)]
    assert "p2 is not on it: p1 is at least as good on all." in said(*three)


def test_quality_is_told_by_what_all_share() -> None:
    def with_loss(loss: float, **others: Any) -> dict[str, Any]:
        return data(quality={"kl_mean": loss, "text": {"sha256": "a"}}, **others)

    close, far = with_loss(0.01), with_loss(0.5)
    places, by = standings(typed([close, far]))
    assert by == "divergence" and [one.front for one in places] == [True, False]
    assert best([close, far])["divergence"] == 0
    another = with_loss(0.5, variant={"repo_id": "mine/larger"})
    assert (
        standings(typed([close, another]))[1] is None
        and best([close, another])["divergence"] is None
    )
    assert "quality is left out" in said(close, another)
    tried = [
        {**one, "behaviour": {"passed": passed, "total": 10, "set_sha256": "s"}}
        for one, passed in ((close, 4), (far, 9))
    ]
    places, by = standings(typed(tried))
    assert by == "behaviour" and [one.front for one in places] == [False, True]
    tried[0]["behaviour"] = {**tried[0]["behaviour"], "set_sha256": "another"}
    assert standings(typed(tried))[1] == "divergence" and best(tried)["tasks passed"] is None


def test_published_scores_stand_in_where_variants_differ() -> None:
    pair = [
        data(variant={"repo_id": f"Qwen/Qwen3-{size}"}, workload={"use_case": "chat"})
        for size in ("0.6B", "4B")
    ]
    places, by = standings(typed(pair))
    assert by == "published" and [one.front for one in places] == [False, True]
    assert 0 < (places[0].quality or 0) < (places[1].quality or 0) <= 100


FIGURES = st.lists(
    st.tuples(
        st.sampled_from([1e9, 2e9, 3e9]),
        st.sampled_from([5.0, 10.0, 20.0]),
        st.sampled_from([HERE, THERE]),
    ),
    min_size=1,
)


@given(FIGURES)
def test_nobody_on_the_front_is_beaten_and_everybody_off_it_is_by_one_of_the_front_of_its_machine(
    points: list[Any],
) -> None:
    places, _ = standings(typed([data(*point) for point in points]))
    for index, one in enumerate(places):
        assert one.front == (not one.beaten_by)
        assert all(points[other][2] == points[index][2] for other in one.beaten_by)
        assert one.front or any(places[other].front for other in one.beaten_by)


def test_a_million_tokens_cost_the_time_that_they_take() -> None:
    # 1e6 tokens at 10 per second: 27.78 hours.
    assert Prices(per_hour=0.36).per_million_tokens(TEN) == pytest.approx(10.0)
    # 100 W for 1e5 seconds are 2.778 kWh.
    assert Prices(watts=100, per_kwh=0.36).per_million_tokens(TEN) == pytest.approx(1.0)
    measured = Measurement.from_json(
        {
            "decode_tps": 10,
            "energy": {"joules_per_token": 3.6, "joules_per_prompt": 36.0},
            "prompt_tokens": 100,
        }
    )
    assert Prices(per_kwh=0.5).per_million_tokens(measured) == pytest.approx(0.5)
    assert Prices(per_hour=0.36, per_kwh=0.5).per_million_tokens(measured) == pytest.approx(10.5)
    assert Prices(per_kwh=0.5).per_million_tokens(TEN) is None
    assert (
        Prices().per_million_tokens(measured) is None
        and Prices(per_hour=1).per_million_tokens(None) is None
    )


def test_a_passed_task_carries_the_cost_of_the_failed_ones() -> None:
    tried = Behaviour.from_json(
        {
            "passed": 5,
            "total": 10,
            "seconds": 3600.0,
            "new_tokens": 1000,
            "prompt_tokens": 10_000,
        }
    )
    assert Prices(per_hour=2).per_successful_task(tried, None) == pytest.approx(0.4)
    measured = Measurement.from_json(
        {
            "energy": {"joules_per_token": 3.6, "joules_per_prompt": 36.0},
            "prompt_tokens": 100,
        }
    )
    # 3600 J for what was said and as much for what was read: 0.002 kWh.
    assert Prices(per_kwh=10).per_successful_task(tried, measured) == pytest.approx(0.004)
    assert Prices(per_hour=2).per_successful_task(tried.but(passed=0), None) is None


def test_power_without_a_price_is_refused_and_energy_that_nobody_measured_is_asked_for() -> None:
    with pytest.raises(PackError, match="--price-per-kwh"):
        Prices(watts=10)
    assert "p0 was measured without energy, so it has no cost: add --watts." in said(
        data(), data(), prices=Prices(per_kwh=1)
    )


def written(folder: Path, **changes: Any) -> Path:
    write_package(folder)
    manifest.write(folder, {**body(folder), **data(**changes), "name": folder.name})
    return folder


def test_the_command_prints_a_column_per_package_and_says_the_rest_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        written(tmp_path / "small"),
        written(tmp_path / "large", memory=2e9, speed=8.0, machine=THERE),
    )
    assert main(["compare", str(first), str(second), "--price-per-hour", "0.36"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    assert lines[""] == ["small", "large"]
    assert lines["peak memory"] == ["1.00 GB", "2.00 GB"] and lines["cost of 1M tokens"] == [
        "10",
        "12.5",
    ]
    assert "different machines" in err and "One price" in err


def test_its_json_holds_every_figure_and_who_beats_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = written(tmp_path / "small"), written(tmp_path / "large", memory=2e9, speed=8.0)
    assert main(["compare", str(first), str(second), "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "qwen-pack/compare/1" and found["same_machine"] is True
    assert [one["on_front"] for one in found["packages"]] == [True, False]
    assert found["packages"][1]["beaten_by"] == [str(first)]
    assert found["packages"][0]["figures"]["decode_tps"] == 10.0
    assert {row["figure"]: row["best"] for row in found["rows"]}["peak_memory_bytes"] == 0


def test_packages_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("a", "b"):
        written(tmp_path / place / "same")
    assert main(["compare", str(tmp_path / "a/same"), str(tmp_path / "b/same")]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[0].split("\t")[1:] == [
        str(tmp_path / "a/same"),
        str(tmp_path / "b/same"),
    ]


def test_what_cannot_be_compared_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = str(written(tmp_path / "p"))
    for words, sentence, code in (
        ([package], "Name two or more", ExitCode.USAGE),
        ([package, str(tmp_path)], "is not a package", ExitCode.INPUT),
        ([package, package, "--watts", "5"], "--price-per-kwh", ExitCode.USAGE),
        ([package, package, "--price-per-hour", "-1"], "-1", ExitCode.USAGE),
        ([package, package, "--price-per-hour", "nan"], "nan", ExitCode.USAGE),
    ):
        assert main(["compare", *words]) == code, words
        out, err = capsys.readouterr()
        assert sentence in err and out == ""
