"""Packages for the tests of what leaves: ordinary ones, and one whose every name was chosen to
break out of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.files import regular_files, sha256
from packager.inspection import refuse_unsafe
from packager.package import manifest
from packager.shipping.export import export
from tests.support.tiny_gguf import tiny_gguf

AGREED: dict[str, Any] = {"allow_dummy": True, "accepted": ("unstated",)}
FORMATS_FOR_APPS = ("ollama", "docker", "android", "ios", "embedded")
SIZES = (0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 70_000)
"""Around every edge of SHA-256's padding, and more than one buffer."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

EVIL = "x\"; exit(1) */ ${evil} $(id) `id` 'q' #{1} %s ??/ <b> {{ 7*7 }} é漢😀"
"""Ends strings and comments, starts templates, trigraphs, markup and commands. A manifest's texts
are printable, so no line break."""
EVIL_FILE = "model/a;b$c&@'é漢 ${x}`id` #{1} %s"
"""What a name may hold that every system takes."""


def finish(work: Generator[Any, None, Any]) -> Any:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def exported(package: Path, name: str, out: Path, **more: Any) -> Path:
    """The package in that format, licence and random weights agreed to."""
    done: Path = finish(export(package, name, out, **{**AGREED, **more})).path
    return done


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def gguf_package(folder: Path, model: str = "model/model.gguf", **more: Any) -> Path:
    """A package for llama.cpp of bytes that no engine is shown, with files of every size that
    matters to a digest."""
    template = more.pop("template", CHATML)
    files = {
        model: tiny_gguf(bytes(range(256)) * 300),
        "LICENSE": b"Apache License\n",
        **({"chat_template.jinja": template.encode()} if template is not None else {}),
        **{f"papers/{size}.txt": (b"%d bytes of paper " % size * 5000)[:size] for size in SIZES},
        **more.pop("files", {}),
    }
    return write(folder, files, {"runtime": {"name": "llama.cpp", "version": "b1"}, **more})


def evil_package(folder: Path, ending: str = ".gguf") -> Path:
    """Texts and names of files that end early what they are written into; the model is `EVIL_FILE`
    with that ending."""
    one = f"{EVIL_FILE}{ending}"
    return gguf_package(
        folder,
        one if ending == ".gguf" else "model/model.gguf",
        files={f"{EVIL_FILE}.two.bin": b"more", **({} if ending == ".gguf" else {one: b"weights"})},
        name=EVIL,
        version=EVIL,
        target=EVIL,
        variant={"repo_id": EVIL, "license": None},
        recipe={"id": EVIL, "kv": EVIL},
    )


def write(folder: Path, files: dict[str, bytes], more: dict[str, Any]) -> Path:
    """A package of those files; `more` replaces fields of its manifest."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    rows = [
        {"path": path, "size": len(data), "sha256": sha256(folder / path)}
        for path, data in files.items()
    ]
    body = {
        "schema": manifest.SCHEMA,
        "name": "tiny",
        "version": "1.4.0",
        "target": "raspberry-pi-5-8gb",
        "files": rows,
        "recipe": {"id": "gguf:Q4_K_M", "kv": "q8_0"},
        "variant": {"repo_id": "Qwen/Qwen3-0.6B", "license": "apache-2.0"},
        "source": {"kind": "dummy"},
        "workload": {"context": 4096},
        "sampling": {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05},
        "predicted": {"footprint": {"total": 900_000_000, "peak": 1_100_000_000}},
    }
    manifest.write(folder, {**body, **more})
    return folder


def opens(artifact: Path, runtime: str, folder: Path) -> bool:
    """Whether a package around the artifact is one that engines may open; raises what keeps them
    from it."""
    files = {
        f"model/{path.relative_to(artifact).as_posix()}": path.read_bytes()
        for path in regular_files(artifact)
    }
    package = write(folder, files, {"runtime": {"name": runtime, "version": "1"}})
    refuse_unsafe(package, manifest.read(package))
    return bool(files)


ARCHIVES = ("tar.zst", "zip")


def refused(work: Callable[[], Any], code: ExitCode, *words: str) -> None:
    with pytest.raises(PackError) as caught:
        finish(work())
    assert caught.value.exit_code == code, str(caught.value)
    for word in words:
        assert word in str(caught.value)


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined."""
    lines = re.sub(
        r"\\\n",
        " ",
        "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")),
    ).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]
