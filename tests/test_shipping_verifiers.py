"""The C, Kotlin and Swift of an export, compiled and run: what is right is handed on, and nothing
else. RAUC and Mender take theirs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.llama_cpp.how_to_run import PLAIN_WEIGHTS
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import build
from tests.support.shipping_packages import EVIL_FILE, SIZES, evil_package, exported, gguf_package

pytestmark = pytest.mark.engine

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
needs_mender = pytest.mark.skipif(
    not shutil.which("mender-artifact"), reason="needs mender-artifact"
)
needs_rauc = pytest.mark.skipif(
    not all(map(shutil.which, ("rauc", "mksquashfs", "openssl"))),
    reason="needs rauc, mksquashfs and openssl",
)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    kept = path.with_name("kept")
    path.rename(kept)
    path.symlink_to(kept)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, "has other content"),
    "a shortened file": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has another size"),
    "a longer file": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has another size"),
    "an empty file": (lambda path: path.write_bytes(b""), "has another size"),
    "a missing file": (Path.unlink, "is not there"),
    "a folder": (folder, "is not there"),
    "a link": (link, "is not there"),
    "a pipe": (pipe, "is not there"),
}


def compiled(source: Path, out: Path) -> Path:
    """qwen-pack-check, with every warning an error, and every undefined step an end."""
    flags = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-O2",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    subprocess.run(
        ["gcc", *flags, "-o", out, source / "qwen_pack.c", source / "main.c"], check=True
    )
    return out


def run(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_package(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture(scope="module")
def check(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    place = tmp_path_factory.mktemp("c")
    return compiled(exported(package, "embedded", place / "out") / "c", place / "check")


def test_the_c_finds_a_whole_package_right_whatever_the_sizes_of_its_files(
    check: Path, package: Path
) -> None:
    assert {path.stat().st_size for path in (package / "papers").iterdir()} == set(SIZES)
    assert run(check, package) == (
        0,
        f"tiny: whole; the engine is given {package}/model/model.gguf\n",
    )


def test_the_c_becomes_the_engine_with_the_models_path_behind_its_words(
    check: Path, package: Path
) -> None:
    assert run(check, package, "echo", "--threads", "2", "--model") == (
        0,
        f"--threads 2 --model {package}/model/model.gguf\n",
    )
    code, said = run(check, package, "no-such-engine")
    assert code == 1 and "no-such-engine" in said and "could not be loaded" in said
    assert run(check)[0] == 2


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("file", ["model/model.gguf", "papers/65.txt", "manifest.json"])
def test_the_c_starts_nothing_where_a_file_is_not_what_was_exported(
    check: Path, package: Path, tmp_path: Path, what: str, file: str
) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    change, words = DAMAGE[what]
    change(copy / file)
    assert run(check, copy, "echo", "started") == (1, f"{file} {words}\n")


def test_the_c_refuses_a_path_that_is_too_long_and_a_folder_that_is_none(
    check: Path, tmp_path: Path
) -> None:
    assert run(check, tmp_path / "absent") == (1, "manifest.json is not there\n")
    assert run(check, "/" * 5000) == (1, "manifest.json has too long a path\n")


@needs_gcc
@pytest.mark.engine
def test_the_c_starts_llama_cpp_with_a_model_that_answers_and_not_with_a_damaged_one(
    tmp_path: Path,
) -> None:
    gguf = build(REPOSITORY / "tests/models/tiny-qwen3", tmp_path / "tiny.gguf", "Q8_0")
    package = gguf_package(tmp_path / "made", files={"model/model.gguf": gguf.read_bytes()})
    check = compiled(exported(package, "embedded", tmp_path / "out") / "c", tmp_path / "check")
    # On the device as RAUC leaves it there.
    subprocess.run(["tar", "-xf", tmp_path / "out/rauc/update.tar", "-C", tmp_path], check=True)
    # The way that packages name for processors on which llama.cpp dies otherwise works on all of
    # them.
    engine = (
        f"import sys, llama_cpp\n{PLAIN_WEIGHTS}\n"
        "model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False); "
        "question = [{'role': 'user', 'content': 'What is 2 + 3?'}]; "
        "print(repr(model.create_chat_completion(question, max_tokens=60, "
        "temperature=0)['choices'][0]['message']['content']))"
    )
    code, said = run(check, tmp_path / "package", sys.executable, "-c", engine)
    assert code == 0 and re.search(r"\d", said), said
    flip(tmp_path / "package/model/model.gguf")
    assert run(check, tmp_path / "package", sys.executable, "-c", engine) == (
        1,
        "model/model.gguf has other content\n",
    )


@needs_gcc
def test_the_c_of_hostile_names_compiles_and_checks_as_any_other(tmp_path: Path) -> None:
    package = evil_package(tmp_path / "evil")
    check = compiled(exported(package, "embedded", tmp_path / "out") / "c", tmp_path / "check")
    code, said = run(check, package)
    assert code == 0 and said.endswith(f"the engine is given {package}/{EVIL_FILE}.gguf\n")
    flip(package / f"{EVIL_FILE}.gguf")
    assert run(check, package) == (1, f"{EVIL_FILE}.gguf has other content\n")


@needs_mender
@pytest.mark.parametrize("make", [gguf_package, evil_package])
def test_mender_takes_the_artifact_and_says_device_version_and_checksum(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    out = exported(
        make(tmp_path / "made"),
        "embedded",
        tmp_path / "out",
        settings={"device_type": "qemu-x86 'b'"},
    )
    script, artifact = out / "mender/write-artifact.sh", tmp_path / "m.mender"
    done = subprocess.run(["sh", script, artifact], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        ["mender-artifact", "read", artifact], capture_output=True, text=True, check=True
    ).stdout
    assert "Compatible devices: '[qemu-x86 'b']'" in said and "Type:   directory" in said
    if make is gguf_package:
        assert "Name: tiny-1.4.0" in said and "rootfs-image.tiny.version: 1.4.0" in said
    flip(out / "rauc/update.tar")
    again = subprocess.run(
        ["sh", script, tmp_path / "n.mender"], capture_output=True, text=True, check=False
    )
    assert (
        again.returncode == 1
        and "not what was exported" in again.stderr
        and not (tmp_path / "n.mender").exists()
    )


@needs_rauc
@pytest.mark.parametrize("evil", [False, True])
def test_rauc_takes_the_bundle_and_says_device_version_and_checksum(
    tmp_path: Path, evil: bool
) -> None:
    noise = {"model/noise.bin": os.urandom(20_000)}  # a bundle of one block is too small for it
    more = (
        {"name": 'a "b" \\ é', "target": 'a "b" \\ é', "version": 'a "b" \\ é'}
        if evil
        else {"target": "rpi5"}
    )
    out = exported(
        gguf_package(tmp_path / "tiny", files=noise, **more), "embedded", tmp_path / "out"
    )
    key, certificate, bundle = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "m.raucb"
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=t",
        "-days",
        "2",
    ]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    subprocess.run(
        ["rauc", "bundle", f"--cert={certificate}", f"--key={key}", out / "rauc", bundle],
        check=True,
        capture_output=True,
    )
    told = ["rauc", "info", f"--keyring={certificate}", "--output-format=json", bundle]
    said = subprocess.run(told, check=True, capture_output=True, text=True).stdout
    rows = json.loads(said)
    (image,) = [row["model"] for row in rows["images"]]
    assert image["checksum"] == hashlib.sha256((out / "rauc/update.tar").read_bytes()).hexdigest()
    assert (rows["compatible"], rows["version"]) == (
        (more["target"], more["version"]) if evil else ("rpi5", "1.4.0")
    )


DRIVER = """
import dev.qwenpack.ModelFiles
import java.io.File

fun main(words: Array<String>) {
    for (folder in words.drop(1)) {
        try {
            println(ModelFiles.verify(File(folder)).path)
        } catch (error: ModelFiles.Damaged) {
            println(error.message)
        }
    }
    val target = File(words[0], "installed")
    fun install(from: String) = try {
        println(ModelFiles.install(target) { File(from, it.path).inputStream() }.path)
    } catch (error: ModelFiles.Damaged) {
        println(error.message)
    }
    install(words[2])
    println(target.walk().count { it.name.endsWith(".part") })
    install(words[1])
}
"""


@pytest.mark.skipif(
    not (shutil.which("kotlinc") and shutil.which("java")), reason="needs kotlinc and java"
)
def test_the_kotlin_compiles_and_hands_out_only_what_is_right(tmp_path: Path) -> None:
    package = evil_package(tmp_path / "evil")
    out = exported(package, "android", tmp_path / "out")
    (tmp_path / "Main.kt").write_text(DRIVER)
    jar = tmp_path / "t.jar"
    words = [
        "kotlinc",
        tmp_path / "Main.kt",
        out / "kotlin/ModelFiles.kt",
        "-include-runtime",
        "-d",
        jar,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "error:" not in done.stderr, done.stderr
    model = f"{EVIL_FILE}.gguf"
    good, bad = (
        out / "assets/package",
        Path(shutil.copytree(out / "assets/package", tmp_path / "bad")),
    )
    flip(bad / model)
    short, missing = (Path(shutil.copytree(good, tmp_path / name)) for name in ("short", "missing"))
    (short / model).write_bytes(b"weights")
    (missing / model).unlink()
    code, said = run("java", "-cp", jar, "MainKt", tmp_path, good, bad, short, missing)
    lines = said.splitlines()
    assert code == 0, said
    assert lines == [
        f"{good}/{model}",
        f"{model} has other content",
        f"{model} has another size",
        f"{model} is not there",
        f"{model} has other content",
        "0",
        f"{tmp_path}/installed/{model}",
    ]
    assert {path.read_bytes() for path in (tmp_path / "installed/model").iterdir()} == {
        path.read_bytes() for path in (package / "model").iterdir()
    }


@pytest.mark.skipif(not shutil.which("swiftc"), reason="needs swiftc")
def test_the_swift_is_read_by_its_compiler(tmp_path: Path) -> None:
    out = exported(evil_package(tmp_path / "evil"), "ios", tmp_path / "out")
    subprocess.run(["swiftc", "-parse", out / "swift/ModelFiles.swift"], check=True)
