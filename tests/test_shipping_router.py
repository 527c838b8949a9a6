"""Several packages behind one address: what leaves with a routing table, and which package answers
a request."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager.chat import speech
from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.content import content_sha256
from packager.shipping.router.table import read
from packager.shipping.shipment import prepare
from packager.sweep import report
from packager.sweep.cell import Cell
from packager.sweep.folder import Folder
from packager.sweep.row import Stages, done
from tests.support.shipping_packages import AGREED as AGREED_TO
from tests.support.shipping_packages import EVIL, evil_package
from tests.support.sweeps import plan_of
from tests.support.trained_package import TRAINED, write_trained
from training.questions import held_out

pytestmark = pytest.mark.slow

PLAN = """
[axes]
variants = ["Qwen3-0.6B"]
targets = ["big"]
[route]
tasks = ["chat", "code", "embed"]
behaviour_percent = 80
"""
AGREED = ("--accept-license", "unstated")
TASKS_PASSED = {"passed": 36, "total": 38, "set": "s"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep with two packages of the trained model, of which the table names the
    smaller one for `chat`; the larger one is written in for `code`."""
    root = tmp_path_factory.mktemp("sweep")
    plan = plan_of(PLAN, root)
    folder = Folder.made(root / "out", plan)
    run, _ = folder.begin(plan)
    spoken = speech.of_folder(TRAINED)
    ends = [
        {"id": number, "text": text}
        for number, text in zip(spoken.ends, spoken.end_texts, strict=True)
    ]
    for weights in ("Q8_0", "Q4_0"):
        cell = Cell(str(TRAINED), f"gguf:{weights}", "big", "default", 512, local=True)
        package = write_trained(
            folder.packages / cell.id, weights, behaviour=TASKS_PASSED, chat={"ends": ends}
        )
        found = manifest.read(package)
        data = {**found.data, "content_sha256": content_sha256(found.data)}
        manifest.write(package, data)
        contents = manifest.read(package).contents
        folder.add(run, done(cell, data, contents, Stages(), (folder.below(package), None)))
    folder.finish(run)
    report.write(folder, folder.runs())
    file = folder.root / "report" / "route.json"
    table = json.loads(file.read_text())
    small = table["routes"]["big"]["chat"]
    assert small["recipe"] == "gguf:Q4_0" and table["unserved"]["big"]["embed"]
    (large,) = (row for row in run.rows.values() if row.id != small["cell"])
    table["routes"]["big"]["code"] = {
        "cell": large.id,
        "package": large.package,
        "evidence": {"content_sha256": large.content_sha256},
    }
    file.write_text(json.dumps(table))
    return folder.root


@pytest.fixture(scope="module")
def exported(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("routed") / "out"
    assert main(["route", str(sweep), "--out", str(out), *AGREED]) == ExitCode.DONE
    return out


def test_an_export_holds_each_package_once_and_its_table_leads_to_them(
    sweep: Path, exported: Path
) -> None:
    table = read(exported / "route.json")
    assert list(table.kinds) == ["chat", "code"] and "embed" in table.unserved
    packages = sorted(path.name for path in (exported / "packages").iterdir())
    assert packages == sorted(table.packages) and len(packages) == 2
    for name in packages:
        assert main(["verify", str(exported / "packages" / name)]) == ExitCode.DONE
    modules = {path.name for path in (exported / "server").rglob("*.py")}
    assert "engine_llama_cpp.py" in modules and "engine_openvino.py" not in modules
    readme = (exported / "README.md").read_text()
    assert "pip install jinja2 llama-cpp-python psutil" in readme and "| chat |" in readme


def test_what_cannot_leave_is_told_before_anything_is_written(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report" / "route.json"
    file.parent.mkdir()
    (tmp_path / "packages").symlink_to(sweep / "packages", target_is_directory=True)
    whole = json.loads((sweep / "report" / "route.json").read_text())

    def refused(code: ExitCode, *words: str, **changes: Any) -> str:
        table = json.loads(json.dumps(whole))
        for name, value in changes.items():
            table["routes"]["big"]["chat"][name] = value
        file.write_text(json.dumps(table))
        capsys.readouterr()
        out = str(tmp_path / "out")
        assert main(["route", str(tmp_path), "--out", out, *words]) == code
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "No package serves 'embed'" in refused(ExitCode.USAGE, "--kind", "embed", *AGREED)
    assert "Did you mean 'chat'" in refused(ExitCode.USAGE, "--kind", "chta", *AGREED)
    assert "no target 'bgi'" in refused(ExitCode.USAGE, "--target", "bgi", *AGREED)
    assert "--accept-license" in refused(ExitCode.USAGE)
    assert "only the manifest is left" in refused(ExitCode.USAGE, *AGREED, package=None)
    assert "leads out" in refused(ExitCode.INPUT, *AGREED, package="../../etc")
    assert "leads out" in refused(ExitCode.INPUT, *AGREED, package=5)
    assert "another digest" in refused(
        ExitCode.INPUT, *AGREED, evidence={"content_sha256": "0" * 64}
    )
    for text, code in (
        ("{", 6),
        ("[]", 6),
        ('{"schema": "qwen-pack/route/1", "routes": 5}', 6),
        ('{"schema": "qwen-pack/route/1", "routes": {"big": 5}}', 6),
        ('{"schema": "qwen-pack/route/1", "routes": {"big": {"chat": {"cell": "../x"}}}}', 6),
    ):
        file.write_text(text)
        assert main(["route", str(tmp_path), "--out", str(tmp_path / "out")]) == code, text
    assert main(["route", str(tmp_path / "nothing")]) == ExitCode.USAGE


def test_names_of_a_table_add_no_line_and_no_markup_to_the_readme(tmp_path: Path) -> None:
    from packager.shipping.apps import routed, snippets

    facts = snippets.facts(prepare(evil_package(tmp_path / "evil"), **AGREED_TO))

    def readme(text: str) -> str:
        rows = {text: {"cell": text}}
        values = routed._values(text, rows, {text: facts}, 5)
        return snippets.render("routed.md", values).decode()

    plain = readme("a").splitlines()
    for name in (EVIL, "a\nb | c | <b>", "`x` | [y](z)"):
        lines = readme(name).splitlines()
        assert len(lines) == len(plain), name
        table = [line for line in lines if line.startswith("|")]
        assert all(line.count("|") == 5 for line in table), name
        assert not set("<>[]$*") & set("".join(table))
    # A kind of task comes from outside as well: in a command it is one word.
    facts = replace(facts, audio_seconds=30, audio_asked=False)
    (asked,) = (line for line in readme("a; rm -rf /\n```\n").splitlines() if "--form" in line)
    word, *rest = shlex.split(asked)[3:]
    assert word.startswith("model=a; rm -rf /_") and rest == ["--form", "file=@sound.wav"]


# ---- answers

QUESTION = [{"role": "user", "content": "What is 3 plus 4?"}]


@pytest.fixture(scope="module")
def router(exported: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Where serve.py of the export answers, and its process."""
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    words = [sys.executable, exported / "serve.py", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def engines(process: psutil.Process) -> list[str]:
    """The settings with which the packages' servers below a process were started."""
    words = [child.cmdline() for child in process.children() if "--settings" in child.cmdline()]
    return [Path(line[line.index("--settings") + 1]).stem for line in words]


def ended(process: psutil.Process) -> None:
    """Wait until a process has ended, whoever is to read how."""
    end = time.monotonic() + 60
    while psutil.pid_exists(process.pid) and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.engine
def test_openais_client_names_a_kind_of_task_and_its_package_answers(
    router: tuple[str, psutil.Process], exported: Path
) -> None:
    openai = pytest.importorskip("openai")
    place, process = router
    table = read(exported / "route.json")
    assert engines(process) == []
    (task,) = [task for task in held_out("serve", 60) if task.kind == "sum"][:1]
    asked: dict[str, Any] = {"messages": [*task.messages], "temperature": 0, "max_tokens": 60}
    with openai.OpenAI(base_url=place, api_key="none", max_retries=0, timeout=60) as client:
        names = [model.id for model in client.models.list()]
        assert names == ["chat", "code", *table.packages]
        for kind in ("chat", "code"):
            found = client.chat.completions.with_raw_response.create(model=kind, **asked)
            name = table.kinds[kind].name
            assert found.headers["X-Qwen-Pack-Package"] == name
            choice = found.parse().choices[0]
            assert choice.finish_reason == "stop" and choice.message.content.strip("- \n").isdigit()
            # The other one has left the memory.
            assert engines(process) == [name]
        by_metadata = client.chat.completions.with_raw_response.create(
            model="chat", metadata={"kind": "code"}, **asked
        )
        assert by_metadata.headers["X-Qwen-Pack-Package"] == table.kinds["code"].name
        by_header = client.chat.completions.with_raw_response.create(
            model="chat",
            metadata={"kind": "chat"},
            extra_headers={"X-Qwen-Pack-Kind": "code"},
            **asked,
        )
        assert by_header.headers["X-Qwen-Pack-Package"] == table.kinds["code"].name
        whole = client.chat.completions.create(model="code", **asked).choices[0].message.content
        pieces = client.chat.completions.create(model="code", stream=True, **asked)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == whole
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        said = client.chat.completions.create(model="code", response_format=form, **asked)
        assert type(json.loads(said.choices[0].message.content)["a"]) is bool
        with pytest.raises(openai.NotFoundError, match="Did you mean 'chat'"):
            client.chat.completions.create(model="chta", **asked)
        with pytest.raises(openai.NotFoundError, match="no package serves 'embed'"):
            client.embeddings.create(model="embed", input="a")
        with pytest.raises(openai.BadRequestError, match="`messages` is empty"):
            client.chat.completions.create(model="chat", messages=[])


@pytest.mark.engine
def test_requests_for_both_packages_at_once_are_all_answered(
    router: tuple[str, psutil.Process],
) -> None:
    place, process = router
    codes: list[int] = []

    def ask(kind: str) -> None:
        body = {"model": kind, "messages": QUESTION, "max_tokens": 4}
        codes.append(post(f"{place}/chat/completions", body)[0])

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in ("chat", "code", "chat")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == [200] * 3 and len(engines(process)) == 1
    root = place.removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/health", timeout=60) as answer:
        assert json.load(answer) == {"status": "ok", "in_memory": engines(process)[0]}
    with urllib.request.urlopen(f"{place}/routes", timeout=60) as answer:
        assert json.load(answer)["unserved"].keys() == {"embed"}
    for body, code in ((b"{", 404), (b"[]", 404), (b"x" * (5 << 20), 413)):
        assert post(f"{place}/chat/completions", body)[0] == code
    # Whatever the path is, no engine is taken for dead because of it.
    engine = [child.pid for child in process.children()]
    port = int(root.rpartition(":")[2])
    for path in (b"/v1/chat", b"/v1/chat/completions\x7f", b"/v1/\xe9"):
        head = b"POST " + path + b" HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall(head)
            assert client.recv(12) == b"HTTP/1.1 404", path
    assert [child.pid for child in process.children()] == engine


@pytest.mark.engine
def test_a_package_that_was_changed_is_not_opened_and_an_engine_that_died_is_started_again(
    exported: Path, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    copy = shutil.copytree(exported, tmp_path / "copy")
    table = read(copy / "route.json")
    model = table.kinds["code"].folder / "model" / "model.gguf"
    model.write_bytes(model.read_bytes()[:-1] + b"\x07")
    words = [sys.executable, copy / "serve.py", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    place = process.stdout.readline().strip()
    own = psutil.Process(process.pid)
    try:
        asked = {"messages": QUESTION, "max_tokens": 4}
        code, answer = post(f"{place}/chat/completions", {"model": "code", **asked})
        assert code == 500 and "is not what the manifest says" in answer["error"]["message"]
        for _ in range(2):
            assert post(f"{place}/chat/completions", {"model": "chat", **asked})[0] == 200
            (child,) = own.children()
            child.kill()
            ended(child)
        assert post(f"{place}/chat/completions", {"model": "chat", **asked})[0] == 200
        (child,) = own.children()
        # Whatever ends the router, the memory of the package is free.
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        ended(child)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    path = copy / "route.json"
    path.write_text(path.read_text().replace(table.kinds["chat"].content_sha256, "0" * 64))
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == ExitCode.INPUT and "another digest" in run.stderr
    assert "Traceback" not in run.stderr
