"""The commands in a package's README, typed as they stand there into llama.cpp's own programs.

They are taken from the folder that QWEN_PACK_LLAMA_TOOLS names, or from PATH; without them these
tests skip.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from packager.chat import speech
from packager.quality.parity_corpus import CONVERSATIONS
from tests.conftest import REPOSITORY
from tests.support.building import TINY, command
from tests.support.openai_form import as_a_client_sends_it
from training.picture_questions import example
from training.questions import held_out
from training.tasks import TOOLS

pytestmark = pytest.mark.engine

MODEL = REPOSITORY / "tests" / "models" / "tiny-qwen3"
QUESTION = "What is 3 + 4?"
MESSAGES = [{"role": "user", "content": QUESTION}]
NO_THOUGHT = {"chat_template_kwargs": {"enable_thinking": False}}
LOAD_S = 60


def tool(name: str) -> str:
    """The path of one of llama.cpp's programs."""
    folder = os.environ.get("QWEN_PACK_LLAMA_TOOLS")
    path = shutil.which(name, path=folder)
    if path is None:
        where = f"in {folder}" if folder else "on PATH"
        pytest.skip(f"needs {name}, which is not {where}: name its folder in QWEN_PACK_LLAMA_TOOLS")
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package of the trained model, and its cache."""
    tool("llama-server")
    folder = tmp_path_factory.mktemp("tools")
    run = command(
        "build",
        *TINY,
        "--target",
        "laptop-cpu",
        "--out",
        str(folder / "package"),
        cache=folder / "cache",
    )
    assert run.returncode == 0, run.stderr
    return folder / "package", folder / "cache"


def in_the_readme(package: Path, name: str) -> list[str]:
    """The words of the README's command for a program, with the program's path in front."""
    text = (package / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^{name} .*$", text, re.MULTILINE)
    return [tool(name), *shlex.split(line)[1:]]


def answer_of(built: tuple[Path, Path]) -> str:
    """What `qwen-pack run` says, which is greedy for this model."""
    run = command("run", str(built[0]), QUESTION, "--max-tokens", "60", cache=built[1])
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def server(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the README's llama-server answers."""
    words = in_the_readme(built[0], "llama-server")
    with answering(words, built[0], tmp_path_factory.mktemp("server") / "log") as root:
        yield root


@contextmanager
def answering(words: list[str], folder: Path, log: Path) -> Iterator[str]:
    """Where a llama-server answers that is started with these words, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words[words.index("--port") + 1] = str(port)
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)
        try:
            root = f"http://127.0.0.1:{port}"
            until = time.monotonic() + LOAD_S
            while not is_well(root):
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.2)
            yield root
        finally:
            process.kill()
            process.wait()


def is_well(root: str) -> bool:
    try:
        with urllib.request.urlopen(f"{root}/health", timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def client(server: str) -> Iterator[Any]:
    """OpenAI's own client."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def test_the_server_writes_the_prompts_of_the_checkpoints_own_template(server: str) -> None:
    own = speech.own_templates(MODEL)
    for name, conversation in CONVERSATIONS.items():
        sent = dict(conversation)
        body = {"messages": [as_a_client_sends_it(row) for row in sent.pop("messages")]}
        if not sent.pop("add_generation_prompt", True):
            # The server goes on with an answer that stands last.
            continue
        body |= {"tools": sent.pop("tools")} if "tools" in sent else {}
        body |= {"chat_template_kwargs": sent} if sent else {}
        request = urllib.request.Request(
            f"{server}/apply-template",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["prompt"] == own.render(conversation), name


def test_the_server_says_what_run_says(client: Any, built: tuple[Path, Path]) -> None:
    answer = client.chat.completions.create(
        model="x", messages=MESSAGES, temperature=0, max_tokens=60, extra_body=NO_THOUGHT
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content.strip() == answer_of(built)


def test_the_command_for_a_terminal_says_what_run_says(built: tuple[Path, Path]) -> None:
    words = in_the_readme(built[0], "llama-cli")
    words += ["--temp", "0", "--reasoning", "off", "--single-turn", "--prompt", QUESTION]
    run = subprocess.run(
        words, cwd=built[0], input="", capture_output=True, text=True, timeout=LOAD_S, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert answer_of(built) in run.stdout.split(QUESTION)[-1]


def test_openais_client_is_streamed_to_and_may_leave(client: Any) -> None:
    more = {"model": "x", "messages": MESSAGES, "max_tokens": 60, "extra_body": NO_THOUGHT}
    whole = client.chat.completions.create(**more, temperature=0).choices[0].message.content
    events = client.chat.completions.create(**more, temperature=0, stream=True)
    text = "".join(choice.delta.content or "" for event in events for choice in event.choices)
    assert text == whole
    stream = client.chat.completions.create(
        **{**more, "max_tokens": 400}, temperature=2, stream=True
    )
    next(iter(stream))
    stream.close()
    with ThreadPoolExecutor(2) as pool:
        work = lambda _: client.chat.completions.create(**more, temperature=0)  # noqa: E731
        answers = [answer.choices[0].message.content for answer in pool.map(work, range(2))]
    assert answers == [whole, whole]


def test_openais_client_gets_tool_calls_and_json_of_a_schema(client: Any) -> None:
    for task in islice((task for task in held_out("calls", 800) if task.kind == "tool"), 3):
        answer = client.chat.completions.create(
            model="x",
            messages=[*task.messages],
            tools=task.tools,
            temperature=0,
            max_tokens=120,
            extra_body=NO_THOUGHT,
        ).choices[0]
        assert answer.finish_reason == "tool_calls", answer
        (call,) = answer.message.tool_calls
        assert call.function.name in TOOLS and isinstance(json.loads(call.function.arguments), dict)
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    more = {"model": "x", "messages": MESSAGES, "max_tokens": 100, "extra_body": NO_THOUGHT}
    answer = client.chat.completions.create(**more, temperature=0, response_format=form)
    assert list(json.loads(answer.choices[0].message.content)) == ["ok"]


AHOY = REPOSITORY / "tests" / "models" / "tiny-qwen3-ahoy"
GREETING = "Ahoy!"


def asked(root: str, **more: Any) -> str:
    """The greedy answer of a server to the question."""
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 60, **NO_THOUGHT, **more}
    request = urllib.request.Request(
        f"{root}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"]).strip()


@pytest.fixture(scope="module")
def added(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained adapter as a package for the trained model's."""
    out = tmp_path_factory.mktemp("added") / "ahoy"
    words = ["build", "--adapter", str(AHOY), "--base", str(built[0]), "--weights", str(MODEL)]
    done = command(*words, "--out", str(out), cache=built[1])
    assert done.returncode == 0, done.stderr
    return out


def test_the_commands_of_an_adapter_package_say_what_run_says(
    built: tuple[Path, Path], added: Path, tmp_path: Path
) -> None:
    words = ["run", str(built[0]), QUESTION, "--adapter", str(added), "--max-tokens", "60"]
    run = command(*words, cache=built[1])
    assert run.returncode == 0, run.stderr
    answer = run.stdout.strip()
    assert answer.startswith(GREETING) and answer != answer_of(built)
    words = [
        word.replace("BASE", str(built[0]), 1) for word in in_the_readme(added, "llama-server")
    ]
    with answering(words, added, tmp_path / "log") as root:
        assert asked(root) == answer
    words = [word.replace("BASE", str(built[0]), 1) for word in in_the_readme(added, "llama-cli")]
    words += ["--temp", "0", "--reasoning", "off", "--single-turn", "--prompt", QUESTION]
    done = subprocess.run(
        words, cwd=added, input="", capture_output=True, text=True, timeout=LOAD_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert answer in done.stdout.split(QUESTION)[-1]


def test_of_several_adapters_in_an_export_a_request_chooses_one_or_none(
    built: tuple[Path, Path], added: Path, tmp_path: Path
) -> None:
    """The entry point of the container, started on this machine."""
    out = tmp_path / "image"
    words = ["export", str(built[0]), "--format", "docker", "--out", str(out)]
    words += ["--adapter", f"first={added}", "--adapter", f"second={added}"]
    words += ["--accept-license", "unstated"]
    done = command(*words, cache=built[1])
    assert done.returncode == 0, done.stderr
    text = (out / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    words = [word.replace("/opt/qwen-pack", str(out)) for word in json.loads(entry)]
    words[0], words[words.index("--host") + 1] = tool(words[0]), "127.0.0.1"
    with answering(words, out, tmp_path / "log") as root:
        assert asked(root) == answer_of(built)
        off, on = ({"id": number, "scale": scale} for number, scale in ((0, 0.0), (1, 1.0)))
        assert asked(root, lora=[off, on]).startswith(GREETING)
        assert asked(root) == answer_of(built)


def test_a_merged_adapter_and_a_file_taken_as_it_is_say_what_run_says(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    file = next((built[0] / "model").glob("*.gguf"))
    common = ["--target", "laptop-cpu", "--context", "256"]
    for name, words in (
        ("merged", ["build", *common, *TINY[:2], "--weights", str(MODEL), "--lora", str(AHOY)]),
        ("adopted", ["adopt", str(file), *common, "--against", str(MODEL)]),
    ):
        package = tmp_path / name
        done = command(*words, "--out", str(package), cache=built[1])
        assert done.returncode == 0, done.stderr
        answer = answer_of((package, built[1]))
        assert answer.startswith(GREETING) is (name == "merged")
        with answering(in_the_readme(package, "llama-server"), package, tmp_path / "log") as root:
            assert asked(root) == answer


SEEING = REPOSITORY / "tests" / "models" / "tiny-qwen3-vl"
LOOK = [*("--context", "256", "--prompt", "128", "--max-image-tokens", "64")]


def test_the_commands_for_pictures_say_what_run_says(tmp_path: Path) -> None:
    """llama-mtmd-cli, and llama-server with an image_url, both as the README writes them."""
    tool("llama-mtmd-cli")
    image = pytest.importorskip("PIL.Image")
    openai = pytest.importorskip("openai")
    package, cache = tmp_path / "package", tmp_path / "cache"
    words = ["build", "--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--use-case", "vision"]
    words += [*LOOK, "--max-ttft-ms", "1e8", "--weights", str(SEEING), "--out", str(package)]
    done = command(*words, cache=cache)
    assert done.returncode == 0, done.stderr
    one, picture = example("held out/0"), tmp_path / "picture.png"
    image.fromarray(one.rgb).save(picture)
    run = command("run", str(package), one.question, "--image", str(picture), cache=cache)
    assert run.returncode == 0, run.stderr
    words = in_the_readme(package, "llama-mtmd-cli")
    words[words.index("--image") + 1] = str(picture)
    words[words.index("--prompt") + 1] = one.question
    said = subprocess.run(
        [*words, "--temp", "0", "--predict", "20"],
        cwd=package,
        capture_output=True,
        text=True,
        timeout=LOAD_S,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.strip().endswith(run.stdout.strip())
    data = base64.b64encode(picture.read_bytes()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": one.question},
    ]
    with answering(in_the_readme(package, "llama-server"), package, tmp_path / "log") as root:
        client = openai.OpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(
            model="x", messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=20
        )
    assert answer.choices[0].message.content.strip() == run.stdout.strip()
