"""A way to a machine that another distribution brings, by its entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.lab import machines, transport_plugins
from packager.lab.transport import Local, parse, run

CODE = """
from packager.lab.transport import Local

def make(address):
    return Local("/tmp", kind="boards")

def broken(address):
    return object()

class Failing(Local):
    def argv(self, command):
        raise OSError(5, "no bus")

def failing(address):
    if address.endswith("x"):
        raise KeyError("x")
    return Failing("/tmp", kind="failing")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with three transports, laid down as an installer would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(transport_plugins.PLUG_INS)
    (tmp_path / "third_party_boards.py").write_text(CODE)
    information = tmp_path / "third_party_boards-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: third-party-boards\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        f"[{transport_plugins.GROUP}]\n"
        "boards = third_party_boards:make\nbroken = third_party_boards:broken\n"
        "failing = third_party_boards:failing\n"
        "absent = third_party_boards:nobody\nssh = third_party_boards:make\n"
    )
    return tmp_path


def test_an_address_of_a_plug_in_reaches_its_machine_and_has_a_name_as_any_other(
    install: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport_plugins.schemes() == ("absent", "boards", "broken", "failing")
    found = parse("boards:rack-3")
    assert (found, found.kind) == (Local("/tmp", kind="boards"), "boards")
    assert run(found, "echo there").text == "there\n"
    monkeypatch.setenv(machines.FILE, str(install / "lab.toml"))
    machines.add("rack", "boards:rack-3")
    assert machines.address_of("rack") == "boards:rack-3"


def test_no_plug_in_takes_the_place_of_a_built_in_way(install: Path) -> None:
    assert parse("ssh://pi5").kind == "ssh"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("broken:x", r"'broken' .* lacks kind, folder"),
        ("absent:x", "'absent' .* does not load: .*nobody"),
        ("failing:x", r"The transport 'failing' .* fails in making one: KeyError: 'x'\."),
        ("nobody:x", "'nobody:x' names no device"),
    ],
)
def test_a_plug_in_that_is_wrong_is_a_sentence(install: Path, address: str, words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        parse(address)
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_a_plug_in_raises_of_its_own_is_said_with_its_name(install: Path) -> None:
    with pytest.raises(PackError, match=r"The transport 'failing' .* fails in argv\(\)") as caught:
        run(parse("failing:rack"), "true")
    assert caught.value.exit_code == ExitCode.USAGE and "no bus" in caught.value.message


def test_plug_ins_are_left_out_where_the_variable_asks_for_it(
    install: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(transport_plugins.PLUG_INS, "0")
    assert transport_plugins.schemes() == ()
    with pytest.raises(PackError, match="names no device"):
        parse("boards:rack-3")
