"""Several packages behind one address: what a routing table may say, what leaves with it, and which
package answers a request."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from packager.chat import speech
from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.content import content_sha256
from packager.shipping.apps import routed
from packager.shipping.router import check
from packager.shipping.router.keeper import Busy, Gone, Keeper
from packager.shipping.router.table import Entry, Table, Unknown, Unusable, read
from packager.shipping.shipment import prepare
from packager.sweep import report
from packager.sweep.cell import Cell
from packager.sweep.folder import Folder
from packager.sweep.row import Stages, done
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import AGREED as AGREED_TO
from tests.support.shipping_packages import EVIL, evil_package, gguf_package
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
    modules = {path.name for path in (exported / "server").iterdir()}
    assert "engine_llama_cpp.py" in modules and "engine_openvino.py" not in modules
    readme = (exported / "README.md").read_text()
    assert "pip install jinja2 llama-cpp-python" in readme and "| chat |" in readme


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


# ---- the table, without an engine


def written(folder: Path, routes: Any, **more: Any) -> Path:
    """A table beside two folders of packages."""
    for name in ("a", "b"):
        (folder / "packages" / name).mkdir(parents=True, exist_ok=True)
    data = {"schema": "qwen-pack/route/1", "routes": {"big": routes}, **more}
    (folder / "route.json").write_text(json.dumps(data))
    return folder / "route.json"


def row(name: str, place: Any = None, digest: Any = "0" * 64) -> dict[str, Any]:
    return {
        "cell": name,
        "package": f"packages/{name}" if place is None else place,
        "evidence": {"content_sha256": digest},
    }


def test_a_request_is_for_the_package_of_its_kind_or_of_that_name(tmp_path: Path) -> None:
    both = {"chat": row("a"), "rag": row("a"), "code": row("b"), "embed": None}
    reasons = {"big": {"embed": "nothing was built"}}
    table = read(written(tmp_path, both, unserved=reasons))
    assert [table.chosen(None, model).name for model in ("chat", "rag", "code", "b")] == [
        *("a", "a", "b", "b")
    ]
    assert table.chosen("code", "chat").name == "b"
    for kind, model, sentence in (
        (None, "embed", "no package serves 'embed': nothing was built"),
        (None, "chta", "there is no kind of task 'chta'. Did you mean 'chat'? Known: chat, rag"),
        ("gpt", "chat", "there is no kind of task 'gpt'"),
        (None, None, "names no kind of task as its `model`"),
        (None, 5, "names no kind of task as its `model`"),
        ([], "chat", "names no kind of task as its `model`"),
    ):
        with pytest.raises(Unknown, match=sentence.replace("?", r"\?")):
            table.chosen(kind, model)
    alone = Table({"chat": Entry("a", tmp_path, "0" * 64, tmp_path)}, {})
    assert alone.chosen(None, None).name == "a"


def test_a_table_that_leads_elsewhere_or_makes_no_sense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "link").symlink_to(tmp_path, target_is_directory=True)
    for routes, sentence in (
        ({"chat": row("a", "../a")}, "leads out of the folder"),
        ({"chat": row("a", "/etc")}, "leads out of the folder"),
        ({"chat": row("a", "C:/x")}, "leads out of the folder"),
        ({"chat": row("a", "packages\\a")}, "no path of a package"),
        ({"chat": row("a", 5)}, "no path of a package"),
        ({"chat": row("a", "packages/link")}, "leads over a link"),
        ({"chat": row("a", "packages/missing")}, "is not there"),
        ({"chat": row("../a", "packages/a")}, "no valid name"),
        ({"chat": row("a", digest="x")}, "no content_sha256"),
        ({"chat": row("a", digest=None)}, "no content_sha256"),
        ({"chat": 5}, "is not an object"),
        ({"chat": None}, "names no package"),
        (5, "is not an object"),
    ):
        with pytest.raises(Unusable, match=sentence):
            read(written(tmp_path, routes))
    for text in ("", "[", "[" * 100_000, "5", '{"schema": 1}', '{"a": "' + "x" * (5 << 20) + '"}'):
        (tmp_path / "route.json").write_text(text)
        with pytest.raises(Unusable):
            read(tmp_path / "route.json")
    two = {"schema": "qwen-pack/route/1", "routes": {"a": {}, "b": {}}}
    (tmp_path / "route.json").write_text(json.dumps(two))
    with pytest.raises(Unusable, match="one target"):
        read(tmp_path / "route.json")


def test_a_package_is_compared_with_the_table_and_its_manifest(tmp_path: Path) -> None:
    package = gguf_package(tmp_path / "package", version="1.0")
    data = manifest.read(package).data
    entry = Entry("a", package, content_sha256(data), tmp_path)
    check.compare(entry)
    with pytest.raises(Unusable, match="another digest"):
        check.compare(Entry("a", package, "0" * 64, tmp_path))
    model = package / "model" / "model.gguf"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Unusable, match="not what the manifest says"):
        check.compare(entry)
    model.unlink()
    with pytest.raises(Unusable, match="missing"):
        check.compare(entry)
    (tmp_path / "elsewhere").write_bytes(whole)
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable, match="link"):
        check.compare(entry)
    model.unlink()
    model.write_bytes(whole)
    (package / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(Unusable, match="not in the manifest"):
        check.compare(entry)
    for text in (b"", b"[", b"[]", b'{"files": [{"path": "../x", "size": 1, "sha256": ""}]}'):
        (package / "manifest.json").write_bytes(text)
        with pytest.raises(Unusable, match="is not a manifest"):
            check.compare(entry)


def test_requests_have_their_turn_in_order_and_too_many_are_turned_away(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "nothing.py", 1)
    entry = Entry("a", tmp_path, "0" * 64, tmp_path)
    keeper._waiting.append(object())
    with pytest.raises(Busy), keeper.turn(entry, lambda: False):
        pass
    keeper = Keeper(tmp_path / "nothing.py", 2)
    keeper._waiting.append(object())
    with pytest.raises(Gone), keeper.turn(entry, lambda: True):
        pass
    assert len(keeper._waiting) == 1


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
        try:
            assert post(f"{place}/chat/completions", body)[0] == code
        except (ConnectionError, urllib.error.URLError):
            assert code == 413  # it closes the connection on what is still being sent


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


def test_the_router_stands_alone_beside_the_server() -> None:
    folder = REPOSITORY / "packager" / "shipping" / "router"
    instead = [Path(str(module.__file__)) for module in routed.STAND_INS]
    """What an export has in the place of the modules of their names."""
    others = [
        path for path in folder.glob("*.py") if path.name not in {one.name for one in instead}
    ]
    assert len(instead) == 3 and len(others) >= 5
    for path in (*others, *instead):
        lines = path.read_text().splitlines()
        names = {line.split()[1].partition(".")[0] for line in lines if line.startswith("import ")}
        names |= {line.split()[1].partition(".")[0] for line in lines if line.startswith("from ")}
        assert {name for name in names if name} <= set(sys.stdlib_module_names), path
