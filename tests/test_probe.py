"""Probe: how fast the kernels of this machine are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.process import JobResult, run_job
from targets.devices.device_file import parse_target
from targets.devices.device_write import device_text
from targets.machine.measure import Kernel, _rate, best_threads, headline, thread_candidates
from targets.machine.measure_ggml import Ggml, GgmlWork, library_folder
from targets.machine.probe import (
    as_target,
    installed_engines,
    look,
    stack_bytes,
)
from tests.support.probed import KERNEL, MACHINE, QUIET, RUNTIMES


def outcome(job: Generator[object, None, JobResult]) -> JobResult:
    try:
        while True:
            next(job)
    except StopIteration as end:
        result: JobResult = end.value
        return result


def measured(tmp_path: Path, *engines: str, budget_s: float = 0.0) -> JobResult:
    arguments = {
        "engines": list(engines),
        "cores": 2,
        "bytes_total": 16 << 20,
        "budget_s": budget_s,
    }
    return outcome(
        run_job(
            "targets.machine.measure:measure_job",
            arguments,
            tmp_path / "log",
            {"OMP_WAIT_POLICY": "passive"},
        )
    )


def sensible(kernel: Kernel) -> None:
    """Far below and far above what any processor reaches, shared with others or with small matrices
    in its caches: the unit would be wrong."""
    assert 1e6 < kernel.bandwidth < 1e15
    assert 1e6 < kernel.compute < 1e17


def test_the_machine_tells_what_it_is_without_measuring() -> None:
    machine = look()
    assert machine.cpu
    assert machine.isa[0] in ("x86_64", "aarch64", "riscv64")
    assert machine.usable_cores >= 1
    assert 0 <= machine.memory.available <= machine.memory.total
    assert machine.storage_free > 0


@pytest.mark.engine
@pytest.mark.skipif(library_folder() is None, reason="llama-cpp-python is not installed")
def test_llama_cpp_is_measured_with_its_own_kernels(tmp_path: Path) -> None:
    result = measured(tmp_path, "llama.cpp")
    kernel = Kernel(**result.value["kernels"][0])
    assert (kernel.engine, kernel.weights) == ("llama.cpp", "q4_k")
    sensible(kernel)
    assert {kernel.threads, kernel.threads_batch} <= {1, 2}
    assert result.value["failed"] == {}


@pytest.mark.engine
@pytest.mark.skipif(library_folder() is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("kind", ["q4_0", "q4_k", "q8_0"])
def test_a_pass_over_ggml_weights_counts_every_byte_and_every_operation(kind: str) -> None:
    folder = library_folder()
    assert folder is not None
    work = GgmlWork(Ggml(folder), kind, 40 << 20)
    bits = {"q4_0": 4.5, "q4_k": 4.5, "q8_0": 8.5}[kind]
    matrices = int((40 << 20) // (2048 * 8192 * bits / 8))
    assert work.decode(1) == matrices * 2048 * 8192 * bits / 8
    assert work.prefill(1) == 2 * 2048 * 8192 * 128 * 2
    work.close()


@pytest.mark.engine
@pytest.mark.skipif("openvino" not in installed_engines(), reason="openvino is not installed")
def test_openvino_is_measured_with_its_own_kernels(tmp_path: Path) -> None:
    kernel = Kernel(**measured(tmp_path, "openvino").value["kernels"][0])
    assert (kernel.engine, kernel.weights) == ("openvino", "int4_sym_g128")
    sensible(kernel)


@pytest.mark.slow
def test_numpy_stands_in_where_no_engine_can_be_driven(tmp_path: Path) -> None:
    (kernel,) = measured(tmp_path, "numpy").value["kernels"]
    assert (kernel["engine"], kernel["weights"]) == ("numpy", "float32")
    sensible(Kernel(**kernel))


def test_numpy_is_left_out_where_an_engine_was_measured(tmp_path: Path) -> None:
    engine = installed_engines()[0]
    if engine == "numpy":
        pytest.skip("no engine is installed")
    assert {
        kernel["engine"] for kernel in measured(tmp_path, engine, "numpy").value["kernels"]
    } == {engine}


@pytest.mark.slow
def test_a_spent_budget_ends_the_measurement_after_the_kind_that_matters_most(
    tmp_path: Path,
) -> None:
    engine = installed_engines()[0]
    assert len(measured(tmp_path, engine, budget_s=0.0).value["kernels"]) == 1


@pytest.mark.slow
def test_a_busy_machine_is_noticed(tmp_path: Path) -> None:
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        result = measured(tmp_path, "numpy")
    finally:
        for process in spin:
            process.kill()
            process.wait()
    assert result.value["other_load"] > 0
    assert result.value["noisy"] == (result.value["other_load"] > 0.10)
    if (look().physical_cores, look().usable_cores) == (2, 2):
        assert result.value["noisy"]


def test_a_folder_without_libraries_is_an_error_the_measurement_survives(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no ggml libraries"):
        Ggml(tmp_path)


@given(st.integers(1, 512))
def test_thread_counts_to_try_begin_with_one_end_with_all_and_stay_few(cores: int) -> None:
    counts = thread_candidates(cores)
    assert counts[0] == 1
    assert counts[-1] == cores
    assert counts == sorted(set(counts))
    assert len(counts) <= 8


def test_one_disturbed_moment_does_not_choose_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "targets.machine.measure.time", SimpleNamespace(perf_counter=lambda: now[0])
    )
    tried: list[int] = []

    def work(threads: int) -> float:
        if not tried or tried[-1] != threads:
            tried.append(threads)
        now[0] += 0.01
        return 0.1 if tried == [1, 2] else threads

    def rate(threads: int, seconds: float) -> float:
        return _rate(work, threads, seconds)

    assert best_threads(rate, 2, ()) == 2
    assert tried == [1, 2, 1, 2]


def test_the_headline_is_what_a_whole_model_reaches_of_the_kernels_measured_first() -> None:
    other = replace(KERNEL, weights="q4_0", bandwidth=40e9, compute=400e9)
    assert headline([KERNEL, other]) == (pytest.approx(0.87 * 20e9), pytest.approx(0.80 * 150e9))


def test_one_machine_has_the_same_rates_whichever_engine_measured_it() -> None:
    # What both engines' large products reached on one machine, one after the other
    # (docs/measurements/forecast.md).
    by_ggml = headline([replace(KERNEL, bandwidth=27e9, compute=255e9)])
    by_openvino = headline(
        [replace(KERNEL, engine="openvino", weights="int4_sym_g128", bandwidth=23e9, compute=500e9)]
    )
    assert by_openvino == (pytest.approx(by_ggml[0], rel=0.05), pytest.approx(by_ggml[1], rel=0.05))


@pytest.mark.engine
@pytest.mark.skipif(library_folder() is None, reason="llama-cpp-python is not installed")
def test_what_a_small_operation_takes_is_measured_once_and_goes_into_the_device(
    tmp_path: Path,
) -> None:
    (kernel,) = measured(tmp_path, "llama.cpp").value["kernels"]
    assert 0 <= kernel["operation_s"] < 1
    one = as_target(MACHINE, replace(QUIET, operation_s=6.5e-6), "mine")
    assert one.device.operation_seconds == 6.5e-6
    assert parse_target(device_text(one), "", RUNTIMES) == one
    assert as_target(MACHINE, QUIET, "mine").device.operation_seconds is None


def test_the_weights_are_larger_than_the_cache_and_never_more_than_a_quarter_of_free_memory(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache/index3"
    cache.mkdir(parents=True)
    (cache / "size").write_text("98304K\n")
    assert stack_bytes(64 * 10**9, tmp_path) == 4 * 96 << 20
    assert stack_bytes(10**9, tmp_path) == 250_000_000
    assert stack_bytes(0, tmp_path) == 16 << 20
    assert stack_bytes(64 * 10**9, tmp_path / "nowhere") == 128 << 20
