"""What the system tells of its processor and of its graphics cards."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.measure.gauges.nvml import process_bytes, used_by
from targets.machine.gpus import Gpu, gpus, seen_by
from targets.machine.isa import processor, riscv_extensions


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
