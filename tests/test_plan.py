"""What would stop a build is found before the first byte is written, all of it, and said with a way
on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.need.workload import merge
from packager.paths import cache_dir
from packager.pipeline import preflight, stages
from packager.pipeline import run as pipeline
from packager.pipeline.cache import Entry
from packager.pipeline.preflight import check, problems
from packager.plan.choose import make_plan
from packager.plan.plan import Plan
from targets import registry
from tests.support.calm import calm
from tests.support.make_checkpoint import write_tiny
from tests.support.make_package import write_package

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


def planned(checkpoint: Path, out: Path | None) -> Plan:
    target = registry.target("cpu-gguf")
    workload = merge({"context": 256}, target.workload)
    return make_plan(
        target, workload, registry.runtimes(), recipe="gguf:Q8_0", weights=str(checkpoint), out=out
    )


@pytest.fixture
def usable(checkpoint: Path, tmp_path: Path) -> Plan:
    return planned(checkpoint, tmp_path / "out" / "p")


def sentences(found: list[PackError]) -> str:
    return "\n".join(f"{int(problem.exit_code)} {problem.message}" for problem in found)


def test_a_plan_that_can_be_carried_out_has_no_problems(usable: Plan) -> None:
    assert problems(usable) == []


@pytest.mark.parametrize("out", ["p", "p/", "./p", "up/../p", "ein Päckchen 包"])
def test_a_place_is_written_down_in_one_way(
    out: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = planned(checkpoint, Path(out))
    assert made.out == tmp_path / (out if out.startswith("ein") else "p")
    assert problems(made) == []


@pytest.mark.parametrize("out", [".", "..", "../.."])
def test_the_folder_one_stands_in_is_never_replaced(
    out: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert "is the current folder" in sentences(problems(planned(checkpoint, Path(out))))


def test_the_cache_and_a_package_may_not_lie_within_each_other(
    checkpoint: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "are one inside the other" in sentences(
        problems(planned(checkpoint, own_cache / "stages" / "p"))
    )
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "p" / "cache"))
    assert "are one inside the other" in sentences(problems(planned(checkpoint, tmp_path / "p")))


def test_a_link_is_not_replaced_even_if_it_leads_to_a_package(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(write_package(tmp_path / "package"))
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name in ("link", "broken"):
        assert (
            sentences(problems(planned(checkpoint, tmp_path / name)))
            == f"2 {tmp_path / name} is a link."
        )
    assert problems(planned(checkpoint, tmp_path / "package")) == []


def test_a_name_that_no_disk_takes_is_found_before_the_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert "too long" in sentences(problems(planned(checkpoint, tmp_path / ("x" * 300))))
    assert problems(planned(checkpoint, tmp_path / ("x" * 255))) == []


def test_all_problems_are_reported_together_with_the_exit_code_of_the_first(
    usable: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 1000)
    (tmp_path / "out").write_text("in the way")
    monkeypatch.setenv("QWEN_PACK_CACHE", str(tmp_path / "out" / "cache"))
    with pytest.raises(PackError, match="for 4 reasons") as caught:
        check(usable, available_memory=1000)
    assert caught.value.message.count("is a file, not a folder") == 2
    assert "of disk" in caught.value.message
    assert "of memory" in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_cache_and_package_need_of_one_disk_adds_up(
    usable: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = (
        usable.runtime.build_needs(usable.shape, usable.chosen.recipe).disk
        + usable.chosen.artifact_bytes
    )
    monkeypatch.setattr(preflight, "free_bytes", lambda path: needs)
    assert problems(usable) == []
    monkeypatch.setattr(preflight, "free_bytes", lambda path: needs - 1)
    assert [problem.exit_code for problem in problems(usable)] == [ExitCode.RESOURCE]


@pytest.mark.engine
def test_what_is_in_the_cache_needs_neither_disk_nor_memory_again(
    usable: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in pipeline.run(usable):
        pass
    calm(cache_dir())
    monkeypatch.setattr(preflight, "free_bytes", lambda path: 0)
    assert problems(usable, available_memory=1) == []
    elsewhere = replace(usable, out=tmp_path / "elsewhere")
    monkeypatch.setattr(preflight, "free_bytes", lambda path: usable.chosen.artifact_bytes)
    assert problems(elsewhere, available_memory=1) == []
    monkeypatch.setattr(preflight, "free_bytes", lambda path: usable.chosen.artifact_bytes - 1)
    assert [problem.exit_code for problem in problems(elsewhere, available_memory=1)] == [
        ExitCode.RESOURCE
    ]


@pytest.mark.engine
def test_a_measurement_of_another_machine_of_the_same_make_is_not_taken_over(
    usable: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached() -> dict[str, bool]:
        events = list(pipeline.run(usable))
        return {
            event.stage: event.cached
            for event in events
            if isinstance(event, pipeline.StageFinished)
        }

    assert set(cached().values()) == {False}
    calm(cache_dir())
    assert set(cached().values()) == {True}
    monkeypatch.setattr(pipeline.stages, "installation_id", lambda: "another")
    assert cached() == {
        "fetch": True,
        "convert": True,
        "measure": False,
        "quality": True,
        "package": False,
    }


def test_the_name_of_a_folder_is_part_of_what_its_gguf_is_cached_under_and_its_place_is_not(
    usable: Plan, tmp_path: Path
) -> None:
    facts = {"files": [{"path": "config.json", "size": 1, "sha256": "0" * 64}], "folder": "out"}
    keys = []
    for place in ("here/Tiny-A", "there/Tiny-A", "here/Tiny-B"):
        plan = replace(usable, source=replace(usable.source, location=str(tmp_path / place)))
        keys.append(stages.convert(plan, Entry(tmp_path, facts)).key)
    assert keys[0] == keys[1] != keys[2]


def test_a_model_says_of_its_licence_what_its_repository_declares(
    usable: Plan, tmp_path: Path
) -> None:
    for kind, licence in (("hub", "mit"), ("local", None)):
        plan = replace(usable, source=replace(usable.source, kind=kind))
        facts = {"files": [], "folder": "out", "license": "mit"}
        assert (
            stages.convert(plan, Entry(tmp_path, facts)).arguments["recipe"]["inputs"]["origin"][
                "license"
            ]
            == licence
        )
