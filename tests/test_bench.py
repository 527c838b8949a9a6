"""What is measured or run again is looked at first: nothing that a package says is taken on
trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.pipeline import bench
from packager.records import Machine, Measurement
from tests.support.make_package import body, write_package
from tests.support.plain_runtime import PlainRuntime


def package(folder: Path, **changes: Any) -> Path:
    write_package(folder)
    manifest.write(folder, {**body(folder), **changes})
    return folder


@pytest.mark.engine
@pytest.mark.parametrize("command", [["bench"], ["run"]])
@pytest.mark.parametrize(
    ("changes", "words", "code"),
    [
        ({"runtime": {"name": "openvin"}}, "Did you mean 'openvino'", ExitCode.USAGE),
        ({"runtime": {"name": None}}, "'runtime.name' is missing", ExitCode.INPUT),
        ({"workload": None}, "no usable workload context", ExitCode.INPUT),
        (
            {"recipe": {"id": "openvino:int8"}},
            "no usable workload context or cache type",
            ExitCode.INPUT,
        ),
        (
            {"workload": {"context": 10**30}},
            "'workload.context' is missing or of the wrong kind",
            ExitCode.INPUT,
        ),
    ],
)
def test_a_manifest_that_cannot_be_run_ends_in_a_sentence(
    command: list[str],
    changes: dict[str, Any],
    words: str,
    code: ExitCode,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words_after = ["hello"] if command == ["run"] else []
    assert main([*command, str(package(tmp_path / "p", **changes)), *words_after]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_an_engine_that_is_not_installed_is_named_with_the_line_that_installs_it(
    tmp_path: Path,
) -> None:
    class Absent(PlainRuntime):
        distributions = ("no-such-engine",)

    with pytest.raises(
        PackError, match=r"no-such-engine missing.*pip install 'qwen-pack\[plain\]'"
    ) as caught:
        next(bench.run(package(tmp_path / "p"), Absent()))
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_saved_measurement_stands_beside_those_that_are_there(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", measurements=None)
    for rate in (10.0, 20.0):
        bench.save(folder, Measurement(decode_tps=rate))
    assert [row["decode_tps"] for row in manifest.read(folder).data["measurements"]] == [10.0, 20.0]


def test_a_package_from_another_machine_keeps_both_measurements_each_with_its_machine(
    tmp_path: Path,
) -> None:
    there, here = {"processor": "a laptop's", "cores": 8}, {"processor": "a board's", "cores": 4}
    folder = package(
        tmp_path / "p", measured={"decode_tps": 10.0, "machine": there}, measurements=[]
    )
    bench.save(folder, Measurement(decode_tps=4.0, machine=Machine(**here)))
    found = manifest.read(folder).data
    assert (found["measured"]["machine"], found["measured"]["decode_tps"]) == (there, 10.0)
    (added,) = manifest.read(folder).contents.measurements
    assert (added.machine, added.decode_tps) == (Machine(**here), 4.0)


def test_figures_stand_beside_each_other_with_their_ratio_where_there_are_both() -> None:
    rows = {
        row.figure.name: row.as_dict()
        for row in bench.beside(
            Measurement(decode_tps=20.0, ttft_ms=0), Measurement(decode_tps=30.0, ttft_ms=5.0)
        )
    }
    assert rows["decode_tps"] == {
        "figure": "decode_tps",
        "manifest": 20.0,
        "now": 30.0,
        "ratio": 1.5,
    }
    assert rows["ttft_ms"]["ratio"] is None
    assert rows["load_s"] == {"figure": "load_s", "manifest": None, "now": None, "ratio": None}
