"""`bench --on`: the whole harness on another machine, bound to what that machine says it is."""

from __future__ import annotations

import json
import os
import platform
import socket
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.cli.bench_quality import lost
from packager.cli.reach import identify
from packager.device.identity import Identity, place
from packager.errors import ExitCode, PackError
from packager.lab.snapshot import Snapshot, take
from packager.package import manifest
from packager.records import Measurement, Quality
from targets.llama_cpp.agent.variants import agents, fitting
from targets.machine.here import here as this_machine
from targets.registry import target
from tests.conftest import REPOSITORY
from tests.support.lab import Played, here, one_agent, ssh_host
from tests.support.machine_tree import lay, version_2
from tests.support.trained_package import TRAINED, write_trained

PI5 = {
    **version_2("/user.slice/session.scope"),
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm fphp asimdhp cpuid asimddp\n"
    "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/meminfo": "MemTotal:        8256000 kB\nMemAvailable:    7000000 kB\n",
    "proc/stat": "cpu  1 2 3 4\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 5\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/self/status": "Name:\tcat\nCpus_allowed_list:\t0-3\n",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    **{
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}": text
        for cpu in range(4)
        for name, text in (("cpuinfo_max_freq", "2400000\n"), ("scaling_governor", "ondemand\n"))
    },
}
LINUX = {"uname -m": "aarch64\n", "uname -sr": "Linux 6.12.0\n"}

# Snapdragon 8 Gen 3: one, five and two cores in three clusters. Clocks: its product brief.
PHONE = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp i8mm bf16 sve2\n",
    "proc/meminfo": "MemTotal:       11500000 kB\nMemAvailable:    4000000 kB\n",
    "proc/stat": "cpu  1 2 3 4\n" + "".join(f"cpu{cpu} 1\n" for cpu in range(8)),
    "proc/self/status": "Cpus_allowed_list:\t0-7\n",
    **{
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq": f"{clock}\n"
        for cpu, clock in enumerate([2265600] * 2 + [3148800] * 3 + [2956800] * 2 + [3302400])
    },
}
ANDROID = {
    "uname -m": "aarch64\n",
    "getprop": "[ro.build.version.sdk]: [34]\n[ro.product.manufacturer]: [samsung]\n"
    "[ro.product.model]: [SM-S928B]\n[ro.soc.manufacturer]: [QTI]\n[ro.soc.model]: [SM8650]\n",
    "dumpsys battery": "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n"
    "  level: 80\n  scale: 100\n",
    "dumpsys power": "POWER MANAGER (dumpsys power)\n  mWakefulness=Dozing\n  mIsPowered=true\n",
}


def played(tmp_path: Path, files: dict[str, str], said: dict[str, str]) -> Snapshot:
    (tmp_path / "seen").mkdir()
    return take(Played(lay(tmp_path / "there", files), said), tmp_path / "seen")


def test_a_pi_is_known_by_its_own_files_and_is_the_device_of_its_target(tmp_path: Path) -> None:
    seen = played(tmp_path, PI5, LINUX)
    found = identify(seen)
    assert found.names == ("Raspberry Pi 5 Model B Rev 1.0",)
    assert (found.cores, found.memory_bytes, found.phone) == (4, 8256000 * 1024, False)
    assert found.isa == ("aarch64", "neon", "fp16", "dotprod")
    assert place(Identity.of(target("raspberry-pi-5-8gb")), found).on_device
    assert not place(Identity.of(target("raspberry-pi-5-4gb")), found).on_device
    assert fitting(found.isa) == ["armv8.2-dotprod", "aarch64"]
    assert (seen.governor(), seen.battery(), seen.screen()) == ("ondemand", None, None)
    assert seen.system == "Linux 6.12.0"


def test_a_phone_is_told_by_its_properties_and_its_clusters_by_their_clocks(
    tmp_path: Path,
) -> None:
    seen = played(tmp_path, PHONE, ANDROID)
    found = identify(seen)
    assert found.phone
    assert found.names[1:] == ("samsung SM-S928B", "QTI SM8650")
    assert fitting(found.isa)[0] == "armv8.6-i8mm"
    assert place(Identity.of(target("android-12gb")), found).on_device
    cores = seen.cores()
    assert [len(kind.cores) for kind in cores.kinds] == [4, 2, 2]
    assert cores.big == 6
    assert cores.processors(4) == {2, 3, 4, 7}
    assert cores.processors(6) == {2, 3, 4, 5, 6, 7}
    assert (seen.battery(), seen.screen()) == ("charging, 80 %", "off")


def test_the_quota_of_a_container_holds_for_the_agent_too(tmp_path: Path) -> None:
    limited = {**PI5, "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n"}
    assert identify(played(tmp_path, limited, LINUX)).cores == 2


def test_this_machine_looks_the_same_from_outside(tmp_path: Path) -> None:
    if platform.system() != "Linux":
        pytest.skip("the agent reads Linux's /proc")
    (tmp_path / "seen").mkdir()
    seen = identify(take(here(tmp_path / "d"), tmp_path / "seen"))
    known = this_machine()
    assert (seen.isa, seen.cores, seen.memory_bytes, seen.names) == (
        known.isa,
        known.cores,
        known.memory_bytes,
        known.names,
    )


@pytest.mark.parametrize("name", ["../../etc/x", "proc/../../x", "/proc/x", "etc/x", "proc/a\tb"])
def test_no_file_lands_outside_of_the_folder_of_the_snapshot(name: str, tmp_path: Path) -> None:
    class Lying(Played):
        def argv(self, command: str) -> list[str]:
            word = next(w for w in command.split() if w.startswith("qwen-pack-"))
            uname = f"\\n{word} uname -m\\nx86_64\\n"
            return ["printf", "%b", f"\\n{word} {name}\\nevil{uname}"]

    (tmp_path / "seen").mkdir()
    take(Lying(tmp_path, {}), tmp_path / "seen")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_machine_without_a_shell_ends_in_a_sentence(tmp_path: Path) -> None:
    class Mute(Played):
        def argv(self, command: str) -> list[str]:
            return ["sh", "-c", "echo no shell here >&2; exit 1"]

    with pytest.raises(PackError, match="does not say what it is: no shell here"):
        take(Mute(tmp_path, {}), tmp_path)


def test_the_agent_is_built_from_what_is_pinned() -> None:
    pinned = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    known = agents()
    assert pinned["llama_cpp_python"] == known.source.version
    assert pinned["ziglang"] == known.compiler.version
    assert f'"ziglang=={known.compiler.version}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_every_variant_is_one_that_some_device_runs_and_the_best_stands_first() -> None:
    for name, variant in agents().variants.items():
        assert fitting(variant.needs)[0] == name
    assert fitting(target("spacemit-k1").device.isa.split()) == ["riscv64-rvv", "riscv64"]
    assert fitting(["loongarch64"]) == []


def test_what_a_machine_computes_otherwise_than_the_checkpoint_fails_the_command() -> None:
    for passed, expected in ((True, False), (None, False), (False, True)):
        assert lost(Measurement(quality=Quality(passed=passed))) is expected
    assert not lost(Measurement())


def test_a_checkpoint_of_other_weights_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    rows = [{"path": "model.safetensors", "size": 1, "sha256": "0" * 64}]
    package = write_trained(tmp_path / "p", source={"kind": "local", "files": rows})
    words = ["bench", str(package), "--on", "local:", "--quality"]
    assert main([*words, str(TRAINED)]) == ExitCode.USAGE
    assert "model.safetensors differs" in capsys.readouterr().err
    assert main([*words, str(tmp_path)]) == ExitCode.INPUT
    assert not (tmp_path / "home" / "qwen-pack-device").exists()


DEVICE = {
    "kind": "laptop",
    "isa": platform.machine(),
    "cores": 1,
    "memory_bytes": 1 << 30,
    "runs_on": "cpu",
    "gpu": "",
    "npu": "",
    "gpu_memory_bytes": None,
    "known_by": [],
}
BUDGET = {
    "rule": "memory",
    "limit": 1e12,
    "measured": None,
    "unit": "B",
    "passed": None,
    "enforced": True,
}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(one_agent(tmp_path_factory).path)


def measured(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.engine
def test_a_package_is_measured_on_a_host_and_its_manifest_names_the_way_and_no_host(
    agent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = write_trained(tmp_path / "p", device=DEVICE, verdicts=[BUDGET])
    with ssh_host(tmp_path) as host:
        monkeypatch.setenv("PATH", f"{host.clients}:{os.environ['PATH']}")
        address = f"{host.address}{tmp_path}/d"
        words = ["bench", str(package), "--on", address, "--agent", agent, "--json"]
        assert main([*words, "--sustained", "1"]) == ExitCode.DONE
    now = measured(capsys)["measured"]
    assert now["decode_tps"] > 0 and now["deterministic"] is True
    assert now["place"]["on_device"] is True
    assert now["peak_memory_bytes"] > (package / "model" / "model.gguf").stat().st_size
    assert now["thread_search"]["candidates"]
    assert len(now["sustained"]["windows"]) >= 2
    assert now["through"]["transport"] == "ssh"
    assert now["through"]["agent_for"] == "file"
    assert len(now["through"]["agent_sha256"]) == 64
    found = manifest.read(package)
    (kept,) = found.contents.measurements
    assert kept.through is not None and kept.on_device
    assert [verdict.passed for verdict in found.contents.verdicts] == [True]
    for name in (socket.gethostname(), "127.0.0.1", str(host.port), str(tmp_path)):
        assert name not in json.dumps(found.data["measurements"])


@pytest.mark.engine
def test_behind_an_emulator_no_machine_is_the_device(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a home"))
    package = write_trained(tmp_path / "p", device=DEVICE, verdicts=[BUDGET])
    before = (package / "manifest.json").read_bytes()
    words = ["bench", str(package), "--on", "local:env A=b", "--agent", agent, "--json"]
    assert main([*words, "--on-device"]) == ExitCode.DONE
    now = measured(capsys)
    assert now["measured"]["place"]["on_device"] is False
    assert "emulator" in now["measured"]["place"]["why"]
    assert (now["verdicts"], now["saved"]) == ([], False)
    assert (package / "manifest.json").read_bytes() == before
    assert list((tmp_path / "a home" / "qwen-pack-device").glob("*/model.gguf"))


@pytest.mark.engine
def test_a_device_without_room_leaves_the_package_as_it_was(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin" / "df"
    df.write_text("#!/bin/sh\necho '/dev/sda 100 50 1000 99% /'\n")
    df.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    package = write_trained(tmp_path / "p")
    before = (package / "manifest.json").read_bytes()
    words = ["bench", str(package), "--on", "local:", "--agent", agent]
    assert main(words) == ExitCode.RESOURCE
    assert "The device has 1.02 MB free" in capsys.readouterr().err
    assert (package / "manifest.json").read_bytes() == before
