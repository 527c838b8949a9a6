"""Probe: what this machine is, how fast its kernels are, and what is kept of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.measure.gauges.nvml import process_bytes, used_by
from packager.process import JobResult, run_job
from packager.select import candidates
from targets.devices.device_file import parse_target
from targets.devices.device_write import device_text
from targets.machine.gpus import Gpu, gpus, seen_by
from targets.machine.isa import processor, riscv_extensions
from targets.machine.limits import Memory
from targets.machine.measure import Kernel, _rate, best_threads, headline, thread_candidates
from targets.machine.measure_ggml import Ggml, GgmlWork, library_folder
from targets.machine.probe import (
    Machine,
    Measurement,
    as_target,
    installed_engines,
    keep,
    kept,
    look,
    measure,
    stack_bytes,
)
from targets.registry import runtimes, target

RUNTIMES = ("llama.cpp", "onnxruntime", "openvino")
KERNEL = Kernel("llama.cpp", "q4_k", 20e9, 150e9, 2, 4)
QUIET = Measurement(
    "llama.cpp",
    20_000_000_000,
    150_000_000_000,
    2,
    4,
    False,
    0.01,
    (KERNEL,),
    {},
    6.5,
    "2026-11-21T10:00:00+00:00",
)
NOISY = replace(QUIET, bandwidth=5_000_000_000, noisy=True, other_load=0.6)
MACHINE = Machine(
    "A processor",
    ("x86_64", "avx2"),
    4,
    8,
    Memory(16 * 10**9, 12 * 10**9, "system"),
    10**11,
    (),
    "Linux 6",
)


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


def test_a_spent_budget_ends_the_measurement_after_the_kind_that_matters_most(
    tmp_path: Path,
) -> None:
    engine = installed_engines()[0]
    assert len(measured(tmp_path, engine, budget_s=0.0).value["kernels"]) == 1


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


def test_a_measurement_is_kept_for_this_machine_and_no_other() -> None:
    assert kept(MACHINE) is None
    assert keep(MACHINE, QUIET) is not None
    assert kept(MACHINE) == QUIET
    assert kept(replace(MACHINE, usable_cores=2)) is None


def test_a_noisy_measurement_does_not_replace_a_quiet_one() -> None:
    keep(MACHINE, NOISY)
    assert kept(MACHINE) == NOISY
    keep(MACHINE, QUIET)
    assert keep(MACHINE, NOISY) is None
    assert kept(MACHINE) == QUIET


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"machine": 1}', '{"measurement": {"kernels": [{}]}, "machine": {}}']
)
def test_a_damaged_file_in_the_cache_counts_as_none(text: str, own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "probe.json").write_text(text)
    assert kept(MACHINE) is None


def test_this_machine_becomes_a_device_with_a_source_for_every_number() -> None:
    one = as_target(MACHINE, QUIET, "mine")
    assert one.device.available_bytes == 12 * 10**9
    assert one.device.confidence == "measured"
    assert (
        "measured on this machine, 2026-11-21, by qwen-pack probe"
        in one.device.sources["bandwidth"]
    )
    assert parse_target(device_text(one), "", RUNTIMES) == one


def test_this_machine_is_a_target_once_it_was_measured() -> None:
    with pytest.raises(PackError, match="not been measured yet") as failure:
        target("this-machine")
    assert "qwen-pack probe" in failure.value.hint
    keep(look(), QUIET)
    assert target("this-machine").device.bandwidth == QUIET.bandwidth


def test_a_noisy_machine_is_not_called_measured_and_says_so_at_its_numbers() -> None:
    one = as_target(MACHINE, NOISY, "mine")
    assert one.device.confidence == "same-class"
    assert "60%" in one.device.sources["bandwidth"]


def test_a_machine_without_any_free_memory_is_still_a_valid_device() -> None:
    one = as_target(replace(MACHINE, memory=Memory(10**9, 0, "cgroup")), QUIET, "mine")
    assert one.device.available_bytes <= 1
    assert parse_target(device_text(one), "", RUNTIMES) == one


def test_without_an_nvidia_driver_there_is_no_gpu() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert gpus() == ()


class Library:
    """An NVML whose answers are written down: two GPUs, of which the second one does not tell its
    clocks, nor who uses it."""

    NVML_CLOCK_MEM = 2

    class NVMLError(Exception):
        pass

    def __init__(self, falls_off_after: int = 2) -> None:
        self._left = falls_off_after

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= self._left:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return ("NVIDIA GeForce RTX 3060", b"Orin (nvgpu)")[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=12_884_901_888, free=12_000_000_000, used=884_901_888)

    def nvmlDeviceGetMaxClockInfo(self, handle: int, which: int) -> int:
        assert which == self.NVML_CLOCK_MEM
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return 7501

    def nvmlDeviceGetMemoryBusWidth(self, handle: int) -> int:
        return 192

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        if handle == 1:
            raise self.NVMLError("Not Supported")
        rows = [(7, 500), (7, 300), (8, 100), (9, None)]
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in rows]


def test_a_gpu_is_seen_with_memory_driver_and_the_bandwidth_of_its_data_sheet() -> None:
    first, second = seen_by(Library())
    assert first == Gpu(
        "NVIDIA GeForce RTX 3060", 12_884_901_888, 12_000_000_000, 360.048e9, "580.65.06"
    )
    assert (second.name, second.bandwidth) == ("Orin (nvgpu)", None)


def test_a_gpu_that_falls_off_the_bus_hides_no_other() -> None:
    assert [gpu.name for gpu in seen_by(Library(falls_off_after=1))] == ["NVIDIA GeForce RTX 3060"]


def test_gpu_memory_of_a_process_is_the_sum_over_gpus_and_unknown_where_it_holds_none() -> None:
    assert used_by(Library(), 7) == 800
    assert used_by(Library(), 9) is None
    assert used_by(Library(), 4711) is None


def test_without_the_library_nothing_is_said_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus() == ()
    assert process_bytes() is None


X86 = """processor\t: 0
model name\t: AMD Ryzen 7 7840HS
flags\t\t: fpu sse4_2 avx f16c fma avx2 avx512f avx512_vnni

processor\t: 1
flags\t\t: none
"""
ARM = (
    "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp\nCPU part\t: 0xd0b\n\nModel\t\t: "
    "Raspberry Pi 5 Model B Rev 1.0\n"
)
RISCV = (
    "processor\t: 0\nisa\t\t: rv64imafdcv_zicbom_zfh_zve32f_zvfh_zvkt\nuarch\t\t: spacemit,x60\n"
)


@pytest.mark.parametrize(
    ("machine", "text", "name", "isa"),
    [
        (
            "x86_64",
            X86,
            "AMD Ryzen 7 7840HS",
            ("x86_64", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512_vnni", "avx512"),
        ),
        (
            "AMD64",
            X86,
            "AMD Ryzen 7 7840HS",
            ("x86_64", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512_vnni", "avx512"),
        ),
        ("aarch64", ARM, "Raspberry Pi 5 Model B Rev 1.0", ("aarch64", "neon", "fp16", "dotprod")),
        ("riscv64", RISCV, "spacemit,x60", ("riscv64", "rvv", "zvfh")),
    ],
)
def test_the_instruction_set_is_read_from_cpuinfo(
    machine: str, text: str, name: str, isa: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert processor(tmp_path, machine) == (name, isa)


def test_an_extension_whose_name_begins_with_v_is_no_vector_unit() -> None:
    assert riscv_extensions("rv64imafdc_zicbom_vendor") == ()
    assert riscv_extensions("rv64gcv") == ("rvv",)


@given(st.text(max_size=200))
def test_any_isa_text_is_read(text: str) -> None:
    assert set(riscv_extensions(text)) <= {"rvv", "zvfh"}


@pytest.mark.engine
def test_the_command_measures_keeps_and_writes_a_device_that_is_accepted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["probe", "--save", "mine", "--json"]) == ExitCode.DONE
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "qwen-pack/probe/1"
    assert shown["noisy"] == shown["measurement"]["noisy"]
    assert shown["device"]["bandwidth"] == shown["measurement"]["bandwidth"] > 0
    assert {kernel["engine"] for kernel in shown["measurement"]["kernels"]} <= set(
        installed_engines()
    )
    assert json.loads((own_cache / "probe.json").read_text())["measurement"] == shown["measurement"]
    assert main(["targets", "check", "mine.toml"]) == ExitCode.DONE


def test_a_name_that_is_taken_is_refused_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("precious")
    assert main(["probe", "--save", "mine"]) == ExitCode.USAGE
    assert "mine.toml already exists" in capsys.readouterr().err
    assert (tmp_path / "mine.toml").read_text() == "precious"
    assert not own_cache.exists()


@pytest.mark.engine
def test_a_runtime_that_cannot_run_on_this_processor_is_rejected_with_the_reason() -> None:
    found = as_target(
        MACHINE,
        replace(QUIET, died={"llama.cpp": "the installed build is of another processor"}),
        "here",
    )
    rows = candidates(found, found.workload, [catalog.find("Qwen3-0.6B")], runtimes(), every=True)
    assert {row.runtime for row in rows if row.passes} <= {"openvino", "onnxruntime"}
    why = {
        reason.has
        for row in rows
        if row.runtime == "llama.cpp"
        for reason in row.reasons
        if reason.rule == "processor"
    }
    assert why == {"the installed build is of another processor"}
    assert "llama.cpp" not in parse_target(device_text(found), "here.toml", RUNTIMES).runtimes
    old = as_target(replace(MACHINE, isa=("x86_64",)), QUIET, "old")
    assert (
        set(old.device.cannot_run) == set(RUNTIMES)
        and "SSE4.2" in old.device.cannot_run["openvino"]
    )


def test_an_engine_that_ends_with_an_illegal_instruction_is_kept_as_one_that_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dying(
        machine: Machine, engines: list[str], environment: object
    ) -> Generator[object, None, Measurement]:
        yield from ()
        if engines[0] == "llama.cpp":
            raise PackError(
                "The process targets.machine.measure:measure_job ended with signal SIGILL.",
                "",
                ExitCode.BUG,
            )
        return replace(QUIET, engine=engines[0])

    monkeypatch.setattr("targets.machine.probe._measure_with", dying)
    monkeypatch.setattr("targets.machine.probe.installed_engines", lambda: ["llama.cpp", "numpy"])
    result = measure(MACHINE, lambda engines: {})
    while True:
        try:
            next(result)
        except StopIteration as end:
            assert list(end.value.died) == ["llama.cpp"] and end.value.engine == "numpy"
            return
