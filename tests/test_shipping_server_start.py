"""How the server of an export ends that does not start: with one sentence and an exit code."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from packager.cli.ports import free_port
from packager.errors import ExitCode, PackError
from packager.shipping.server.connections import BoundedServer
from tests.support.serving import DAMAGE, damaged, refusal
from tests.support.shipping_packages import exported, gguf_package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a package that no engine is shown."""
    home = tmp_path_factory.mktemp("export")
    chat = {"chat": {"ends": [{"id": 1, "text": "<|im_end|>"}]}}
    return exported(gguf_package(home / "package", **chat), "docker", home / "out")


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_settings_that_are_damaged_are_said_in_a_sentence(folder: Path, kind: str) -> None:
    with damaged(folder / "server" / "settings.json", kind):
        code, said = refusal(folder)
    assert code == ExitCode.INPUT and "settings.json is not what qwen-pack wrote there" in said


def test_what_a_person_can_mend_is_said_with_the_way_on(folder: Path, tmp_path: Path) -> None:
    template = folder / "package" / "chat_template.jinja"
    with damaged(template, "no text"):
        code, said = refusal(folder)
    assert code == ExitCode.INPUT and f"{template} is not text in UTF-8" in said
    code, said = refusal(folder, "--settings", str(tmp_path / "none.json"))
    assert code == ExitCode.USAGE and "none.json cannot be read" in said and "--settings" in said
    code, said = refusal(folder, "--adapter", str(tmp_path))
    assert code == ExitCode.USAGE and "takes no adapters" in said
    other = shutil.copytree(folder, tmp_path / "other")
    settings = other / "server" / "settings.json"
    known = {**json.loads(settings.read_bytes()), "runtime": "openvino"}
    settings.write_text(json.dumps(known))
    code, said = refusal(other, "--adapter", str(tmp_path))
    assert code == ExitCode.INPUT and "is not an adapter package" in said


def test_a_module_that_is_not_there_is_said_with_its_name(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "server" / "jinja2.py").write_text("raise ImportError('gone', name='jinja2')")
    code, said = refusal(other)
    assert code == ExitCode.USAGE and "jinja2 cannot be imported here" in said
    assert "README.md" in said


def test_an_interruption_before_the_modules_are_there_ends_without_a_traceback(
    folder: Path,
) -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'packager.shipping.server.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv = ['serve.py', '--port', '0']\n"
        "runpy.run_path('serve.py', run_name='__main__')\n"
    )
    run = subprocess.run(
        [sys.executable, "-E", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (ExitCode.INTERRUPTED, "", "")


def test_an_address_that_cannot_be_used_is_said_with_the_way_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], 99_999):
            with pytest.raises(PackError, match="cannot be used") as caught:
                BoundedServer(("127.0.0.1", port), BaseHTTPRequestHandler)
            assert caught.value.exit_code == ExitCode.USAGE and "--port" in caught.value.hint


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\u00fc..x", "a b"])
def test_what_is_no_name_of_a_host_is_said_too(host: str) -> None:
    for begin in (
        lambda: BoundedServer((host, 0), BaseHTTPRequestHandler),
        lambda: free_port(host, 0),
    ):
        with pytest.raises(PackError, match=r"cannot be used: \w") as caught:
            begin()
        assert caught.value.exit_code == ExitCode.USAGE and "--host" in caught.value.hint


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_an_address_of_ipv6_is_one_too() -> None:
    with BoundedServer(("::1", 0), BaseHTTPRequestHandler) as server:
        assert server.address_of("::1") == f"http://[::1]:{server.server_port}/v1"
