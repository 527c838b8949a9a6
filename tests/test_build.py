"""`qwen-pack build` from end to end: a real engine on tiny checkpoints of the true architecture."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.conftest import REPOSITORY
from tests.support.calm import calm
from tests.support.make_checkpoint import write_tiny

pytestmark = pytest.mark.engine

FLAGS = ["--target", "laptop-cpu", "--recipe", "openvino:int8_asym", "--context", "256"]
TINY = [
    "--recipe",
    "gguf:Q8_0",
    "--context",
    "256",
    "--weights",
    str(REPOSITORY / "tests" / "models" / "tiny-qwen3"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package that was built once, and the cache it left."""
    folder = tmp_path_factory.mktemp("built")
    run = command(
        "build",
        *FLAGS,
        "--weights",
        str(checkpoint),
        "--out",
        str(folder / "package"),
        cache=folder / "cache",
    )
    assert run.returncode == 0, run.stderr
    calm(folder / "cache")
    return folder / "package", folder / "cache"


@pytest.fixture
def package(built: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built[0], tmp_path / "package"))


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "QWEN_PACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def command(
    *arguments: str, cache: Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packager.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(cache),
        cwd=cwd,
        check=False,
    )


def living_processes(cache: Path) -> list[int]:
    """Processes with this cache in their environment that stay alive: a build and everything it
    started. What was killed has a moment to die."""
    for _ in range(600):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get("QWEN_PACK_CACHE") == str(cache)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process.pid)
        if not found:
            break
        time.sleep(0.1)
    return found


def test_a_package_holds_the_model_its_papers_and_a_whole_manifest(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package = built[0]
    manifest = json.loads((package / "manifest.json").read_text())
    assert verify(package) == []
    assert manifest["schema"] == "qwen-pack/manifest/1"
    assert manifest["target"] == "laptop-cpu"
    assert manifest["variant"]["repo_id"] == "local/tiny"
    assert manifest["source"]["kind"] == "local"
    assert {row["path"] for row in manifest["source"]["files"]} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert manifest["recipe"]["id"] == "openvino:int8_asym"
    assert manifest["runtime"]["name"] == "openvino"
    assert manifest["tools"]["openvino"] == manifest["runtime"]["version"]
    paths = {row["path"] for row in manifest["files"]}
    assert {
        "model/openvino_model.xml",
        "model/openvino_model.bin",
        "model/openvino_tokenizer.xml",
    } <= paths
    assert {"README.md", "LICENSE", "NOTICE", "chat_template.jinja"} <= paths
    assert {
        "MODEL_CARD.md",
        "sbom.cdx.json",
        "provenance.intoto.json",
        "benchmark.intoto.json",
    } <= paths
    assert len(manifest["chat_template_sha256"]) == 64
    assert "hardly better than chance" in manifest["quality"]["skipped"], "the weights are random"
    assert manifest["quality"]["parity"]["findings"] == [] and manifest["quality"]["passed"] is True
    for key in (
        "load_s",
        "ttft_ms",
        "prefill_tps",
        "decode_tps",
        "token_ms_median",
        "token_ms_p95",
        "peak_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    for key in (
        "ttft_ms_p99",
        "token_ms_p99",
        "prefill_128_tps",
        "decode_empty_tps",
        "decode_full_tps",
        "steady_memory_bytes",
    ):
        assert manifest["measured"][key] > 0, key
    assert manifest["measured"]["repeats"] == 5
    assert manifest["measured"]["full_context_tokens"] == 256 - 48
    search = manifest["measured"]["thread_search"]
    assert (
        manifest["measured"]["threads"]
        == search["threads"]
        in [row["threads"] for row in search["candidates"]]
    )
    for key, error in manifest["errors_percent"].items():
        assert error is not None, key
    assert manifest["measured"]["deterministic"] is True
    assert manifest["predicted"]["footprint"]["total"] > 0
    assert all(
        {"rule", "limit", "measured", "passed", "enforced"} <= row.keys()
        for row in manifest["verdicts"]
    )


def test_nothing_in_a_package_names_a_folder_of_the_machine_that_built_it(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    for path in package.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for folder in (str(cache), str(checkpoint.parent), str(package)):
                assert folder.encode() not in data, f"{path.name} names {folder}"


def test_the_same_build_again_is_cached_in_every_stage(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    before = (package / "manifest.json").read_bytes()
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0
    assert run.stderr.count("cached") == 5
    assert (package / "manifest.json").read_bytes() == before


def test_a_build_elsewhere_with_another_mask_zone_language_and_on_one_core_gives_the_same_digests(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "over there" / "tiny")
    core = sorted(os.sched_getaffinity(0))[:1]
    start = (
        f"import os, sys; os.umask(0o077); os.sched_setaffinity(0, {core}); from packager.cli "
        "import main; sys.exit(main())"
    )
    names = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "77"}
    surroundings = {
        key: value
        for key, value in environment(tmp_path / "cache").items()
        if key != "SOURCE_DATE_EPOCH"
    }
    line = [
        sys.executable,
        "-c",
        start,
        "build",
        *FLAGS,
        "--weights",
        str(source),
        "--out",
        str(tmp_path / "other"),
    ]
    run = subprocess.run(
        line, capture_output=True, text=True, env={**surroundings, **names}, check=False
    )
    assert run.returncode == 0, run.stderr
    one, other = (
        json.loads((place / "manifest.json").read_text())
        for place in (built[0], tmp_path / "other")
    )
    model = [
        [row for row in data["files"] if row["path"].startswith("model/")] for data in (one, other)
    ]
    assert len(model[0]) > 5 and model[0] == model[1]
    assert one["content_sha256"] == other["content_sha256"]


def test_a_rebuild_of_the_package_gives_its_files_again(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "another name")
    run = command(
        "verify", str(built[0]), "--rebuild", "--weights", str(source), cache=tmp_path / "cache"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "a rebuild gives the same" in run.stdout
    assert (
        not list((tmp_path / "cache").glob("work/*"))
        and not (tmp_path / "cache" / "stages").exists()
    )


def test_a_measurement_that_was_noisy_is_made_again_by_the_same_build_and_goes_into_the_package(
    built: tuple[Path, Path],
    package: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Path(shutil.copytree(built[1], tmp_path / "cache"))
    calm(cache, noisy=True)
    before = json.loads((package / "manifest.json").read_text())["measured"]["measured_at"]
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.stderr.count("cached") >= 3, "one attempt is all that the tests want"
    assert json.loads((package / "manifest.json").read_text())["measured"]["measured_at"] == before
    monkeypatch.setenv("QWEN_PACK_ATTEMPTS", "2")
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("cached") == 3
    assert json.loads((package / "manifest.json").read_text())["measured"]["measured_at"] > before
    assert verify(package) == []


def test_json_is_one_object_on_stdout_and_narration_stays_on_stderr(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), "--json", cache=cache
    )
    answer = json.loads(run.stdout)
    assert answer["schema"] == "qwen-pack/build/1"
    assert answer["package"] == str(package)
    assert answer["manifest"] == json.loads((package / "manifest.json").read_text())


def test_a_damaged_package_is_built_again_from_the_cache(
    built: tuple[Path, Path], package: Path, checkpoint: Path
) -> None:
    (package / "model" / "openvino_model.bin").write_bytes(b"damaged")
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=built[1]
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("cached") == 4
    assert verify(package) == []


def test_a_damaged_artifact_in_the_cache_is_made_again_and_never_shipped(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(built[1], tmp_path / "cache"))
    (artifact,) = cache.glob("stages/convert-*/out/openvino_model.bin")
    before, data = artifact.stat(), bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 4
    artifact.write_bytes(data)
    os.utime(artifact, ns=(before.st_atime_ns, before.st_mtime_ns))
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p"), cache=cache
    )
    assert run.returncode == 0, run.stderr
    assert "openvino_model.bin is not what was written): it is made again." in run.stderr
    assert run.stderr.count("cached") == 3, (
        "fetch, measurement and comparison are of the true artifact"
    )
    one, other = (
        json.loads((place / "manifest.json").read_text()) for place in (built[0], tmp_path / "p")
    )
    assert one["content_sha256"] == other["content_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_package_is_written_is_an_interruption_and_leaves_a_whole_package_or_none(
    number: int, built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    line = [
        sys.executable,
        "-m",
        "packager.cli",
        "build",
        *FLAGS,
        "--weights",
        str(checkpoint),
        "--out",
        str(tmp_path / "p"),
    ]
    run = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(built[1]),
    )
    assert run.stderr is not None
    for text in run.stderr:
        if text.startswith("[5/5]"):
            run.send_signal(number)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.INTERRUPTED, rest
    assert "Interrupted" in rest
    assert list(tmp_path.iterdir()) == ([tmp_path / "p"] if (tmp_path / "p").exists() else [])
    assert not (tmp_path / "p").exists() or verify(tmp_path / "p") == []


def test_a_package_that_rotted_without_a_trace_is_written_again(
    built: tuple[Path, Path], checkpoint: Path
) -> None:
    package, cache = built
    path = package / "model" / "openvino_model.bin"
    before, data = path.stat(), bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    run = command("build", *FLAGS, "--weights", str(checkpoint), "--out", str(package), cache=cache)
    assert run.returncode == 0 and "The package that is there is damaged" in run.stderr, run.stderr
    assert run.stderr.count("cached") == 4
    assert verify(package) == []


def test_bench_measures_a_package_again_and_keeps_the_figures_only_when_asked(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (package / "manifest.json").read_bytes()
    assert main(["bench", str(package), "--json"]) == ExitCode.DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "qwen-pack/bench/1"
    assert answer["measured"]["decode_tps"] > 0
    assert {row["figure"] for row in answer["rows"]} >= {
        "ttft_ms",
        "decode_tps",
        "peak_memory_bytes",
    }
    assert (package / "manifest.json").read_bytes() == before
    assert main(["bench", str(package), "--save"]) == ExitCode.DONE
    assert "decode" in capsys.readouterr().out
    assert len(json.loads((package / "manifest.json").read_text())["measurements"]) == 1
    assert verify(package) == []


def test_run_answers_on_stdout_and_twice_the_same(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for _ in range(2):
        assert main(["run", str(package), "Hello", "--max-tokens", "8"]) == ExitCode.DONE
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1


def test_bench_and_run_refuse_a_damaged_package(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "LICENSE").write_text("changed")
    for arguments in (["bench", str(package)], ["run", str(package), "Hello"]):
        assert main(arguments) == ExitCode.INPUT
        assert "LICENSE" in capsys.readouterr().err


def test_what_qwen_pack_did_not_make_is_never_replaced(
    checkpoint: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holiday = tmp_path / "photos"
    holiday.mkdir()
    (holiday / "beach.jpg").write_text("sand")
    (package / "notes.txt").write_text("mine")
    for out in (holiday, package, holiday / "beach.jpg"):
        assert (
            main(["build", *FLAGS, "--weights", str(checkpoint), "--out", str(out)])
            == ExitCode.USAGE
        )
        assert "did not write" in capsys.readouterr().err or out.name == "beach.jpg"
    assert (holiday / "beach.jpg").read_text() == "sand"
    assert (package / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--target", "laptop-gpu"], "Did you mean 'laptop-cpu'", ExitCode.USAGE),
        (
            ["--target", "laptop-cpu", "--model", "Qwen3-0.6"],
            "Did you mean 'Qwen3-0.6B'",
            ExitCode.USAGE,
        ),
        (["--target", "laptop-cpu", "--recipe", "openvino:int5"], "int5", ExitCode.USAGE),
        (["--target", "laptop-cpu", "--weights", "./nowhere"], "nowhere", ExitCode.USAGE),
        (
            ["--target", "laptop-cpu", "--max-memory-mb", "10"],
            "Nothing fits",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-file-size", "600k"],
            "--max-file-size 1M",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-memory-mb", "20"],
            "--max-memory-mb 6",
            ExitCode.NOTHING_FITS,
        ),
        (
            ["--target", "laptop-cpu", *TINY, "--max-memory-mb", "1", "--max-artifact-mb", "1"],
            "a limit of 1.00 MB",
            ExitCode.NOTHING_FITS,
        ),
        (["--target", "laptop-cpu", "--context", "-5"], "context", ExitCode.USAGE),
        (["--target", "laptop-cpu", "--model", "Qwen3-0.6B"], "--weights dummy", ExitCode.SOURCE),
    ],
)
def test_what_cannot_be_built_ends_in_one_sentence_and_its_exit_code(
    arguments: list[str],
    words: str,
    code: ExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    assert (
        main(
            ["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "locked" / "p")]
        )
        == ExitCode.USAGE
    )
    assert "is not writable" in capsys.readouterr().err


def test_an_output_below_a_file_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert (
        main(["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "file" / "p")])
        == ExitCode.USAGE
    )
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_full_disk_is_found_before_the_first_byte(checkpoint: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    build = (
        f"{sys.executable} -m packager.cli build {' '.join(FLAGS)} --weights {checkpoint} "
        f"--out {disk}/p"
    )
    script = f"mount -t tmpfs -o size=300k tmpfs {disk} && exec {build}"
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment(tmp_path / "cache"),
        check=False,
    )
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip("this system lets nobody make a small disk of his own")
    assert run.returncode == ExitCode.RESOURCE, run.stderr
    assert "of disk" in run.stderr


def test_a_disk_that_fills_up_on_the_way_leaves_no_package(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    """The conversion is in the cache; a limit on file size stands for a disk that others fill while
    the package is written."""
    script = (
        f"ulimit -f 20; exec {sys.executable} -m packager.cli build {' '.join(FLAGS)} "
        f"--weights {checkpoint} --out {tmp_path}/out/p"
    )
    run = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment(built[1]), check=False
    )
    assert run.returncode == ExitCode.RESOURCE, run.stderr
    assert "disk is full" in run.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_budget_that_the_user_set_and_the_measurement_misses_fails_the_build(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The device file promises what no machine reaches, so the plan passes and the measurement
    decides."""
    made = command("targets", "new", "dream", "--from", "laptop-cpu", cache=tmp_path, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "dream.toml").read_text()
    (tmp_path / "dream.toml").write_text(
        re.sub(
            r"^operation_seconds = [\d.e-]+$",
            "operation_seconds = 1e-9",
            re.sub(r"^(bandwidth|compute) = [\d.]+.*$", r"\1 = 9e13", text, flags=re.MULTILINE),
            flags=re.MULTILINE,
        )
    )
    flags = ["--target", str(tmp_path / "dream.toml"), *FLAGS[2:], "--min-decode-tps", "7500"]
    run = command(
        "build",
        *flags,
        "--weights",
        str(checkpoint),
        "--out",
        str(tmp_path / "p"),
        cache=tmp_path / "cache",
    )
    assert run.returncode == ExitCode.BUDGET, run.stderr
    assert "Missed: decode" in run.stderr
    verdicts = json.loads((tmp_path / "p" / "manifest.json").read_text())["verdicts"]
    assert [row["passed"] for row in verdicts if row["rule"] == "decode"] == [False]


@pytest.mark.parametrize("stage", ["Get the weights", "Convert and quantize", "Smoke benchmark"])
def test_ctrl_c_leaves_no_package_and_no_process_and_the_next_run_goes_on(
    stage: str, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p")]
    run = subprocess.Popen(
        [sys.executable, "-m", "packager.cli", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(tmp_path / "cache"),
    )
    assert run.stderr is not None
    seen: list[str] = []
    for line in run.stderr:
        seen.append(line)
        if stage in line:
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            break
    rest = run.stderr.read()
    assert run.wait(120) == ExitCode.INTERRUPTED, "".join(seen) + rest
    assert "Interrupted" in rest
    assert not (tmp_path / "p").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert list((tmp_path / "cache" / "work").iterdir()) == []
    assert living_processes(tmp_path / "cache") == []
    if stage == "Smoke benchmark":
        again = command(*arguments, cache=tmp_path / "cache")
        assert again.returncode == 0, again.stderr
        # A fast machine has done the benchmark before it is interrupted.
        assert again.stderr.count("cached") in (2, 3)


def progress_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("[")]


def test_a_piped_build_says_one_line_per_fact(
    built: tuple[Path, Path], checkpoint: Path, tmp_path: Path
) -> None:
    run = command(
        "build", *FLAGS, "--weights", str(checkpoint), "--out", str(tmp_path / "p"), cache=built[1]
    )
    assert progress_of(run.stderr) == [
        "[1/5] Get the weights",
        "[2/5] Convert and quantize",
        "[3/5] Smoke benchmark",
        "[4/5] Quality gate",
        "[5/5] Hash and package",
    ]
    assert [
        line
        for line in run.stderr.splitlines()
        if "cached" in line and re.search(r"\d [kM]B$", line)
    ] != []
    assert re.search(r"cached: on 20\d\d-\d\d-\d\d: .* tok/s", run.stderr)
    assert "\x1b" not in run.stderr + run.stdout
    values: dict[str, Any] = {line.split("\t")[0]: line for line in run.stdout.splitlines()}
    assert {"model files", "peak memory", "decode"} <= values.keys()


def test_the_documentation_names_every_field_of_the_manifest(built: tuple[Path, Path]) -> None:
    page, measurement = (
        (REPOSITORY / "docs" / "manifest.md")
        .read_text()
        .split("## Commands")[0]
        .split("## A measurement")
    )

    def named(text: str) -> set[str]:
        rows = (row.split("|")[1] for row in text.splitlines() if row.startswith("| `"))
        return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)(?:\[\])?`", row)}

    manifest = json.loads((built[0] / "manifest.json").read_text())
    # What `behave` adds later, and what other builds have.
    elsewhere = {"behaviour", "adapter", "warm", "speculation"}
    assert named(page) - elsewhere == manifest.keys()
    told = set(re.findall(r"`([a-z0-9_]+)(?:\[\])?`", measurement))
    assert manifest["measured"].keys() - {"seconds", "peak_bytes"} <= told
