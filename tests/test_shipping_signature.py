"""Signatures: what was signed passes, everything else is found, and others verify what we sign."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.files import write_secret
from packager.package import manifest
from packager.shipping import keys
from packager.shipping.signature import Signer, Trust, check, sign
from packager.shipping.versions import ordered
from tests.support.make_package import body
from tests.support.shipping_packages import gguf_package

pytest_plugins = ("tests.support.fixtures.signing",)
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("no_password")]


@pytest.fixture
def pair(tmp_path: Path) -> keys.KeyPair:
    return keys.new(tmp_path / "team.key")


def signed(package: Path, pair: keys.KeyPair) -> Path:
    return sign(package, Signer(pair.private), package.with_name("tiny.sig"))


def test_a_signed_package_passes_and_stays_as_it_was(package: Path, pair: keys.KeyPair) -> None:
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    signature = signed(package, pair)
    assert check(package, signature, Trust(pair.public), "1.4") == []
    assert before == {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}


def test_the_private_half_is_its_owners_alone_and_no_key_is_replaced(
    tmp_path: Path, pair: keys.KeyPair
) -> None:
    assert pair.private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PackError, match="already exists, and nothing is replaced") as caught:
        keys.new(pair.private)
    assert "--out" not in caught.value.hint, "`keys new` has no such flag"


def test_the_command_that_checks_a_signature_is_typed_as_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'o\'ur "keys" $x'
    pair = keys.new(folder / "te am.key")
    package, out = gguf_package(tmp_path / "package"), folder / "s'1.zip"
    agreed = ["--allow-dummy", "--accept-license", "unstated"]
    words = [str(package), "--format", "zip", "--out", str(out), "--sign", str(pair.private)]
    assert main(["export", *words, *agreed]) == ExitCode.DONE
    shown = capsys.readouterr().out.split("`")[1].removeprefix("qwen-pack ")
    typed = [str(package) if word == "DIR" else word for word in shlex.split(shown)]
    with contextlib.chdir(folder):
        assert main(typed) == ExitCode.DONE


def test_the_private_half_is_never_readable_by_others_whatever_the_mask_and_a_kill_leaves_nothing(
    tmp_path: Path,
) -> None:
    """Every call to the system is looked at: no file of the private half has more rights at any
    moment."""
    script = (
        "import os, signal, sys; os.umask(0)\n"
        "from pathlib import Path\n"
        "from packager.shipping import keys\n"
        "at, step = int(sys.argv[2]), 0\n"
        "looking = False\n"
        "def private(path):\n"
        "    global looking\n"
        "    looking = True\n"
        "    found = b'PRIVATE' in path.read_bytes()\n"
        "    looking = False\n"
        "    return found\n"
        "def look(event, arguments):\n"
        "    global step\n"
        "    if looking: return\n"
        "    if event in ('open', 'os.link', 'os.rename', 'os.chmod', 'os.remove') and "
        "str(sys.argv[1]) in os.getcwd():\n"
        "        for path in Path('.').rglob('*'):\n"
        "            if path.is_file() and path.stat().st_mode & 0o077 and private(path):\n"
        "                os.write(2, f'{path} {path.stat().st_mode:o}'.encode()); os._exit(3)\n"
        "        step += 1\n"
        "        if step == at: os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.chdir(sys.argv[1]); keys._cryptography(); sys.addaudithook(look); "
        "keys.new(Path('team.key'))\n"
    )
    for at in range(1, 40):
        folder = tmp_path / str(at)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(at)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, -9), done.stderr
        names = {path.name for path in folder.iterdir()}
        if done.returncode == 0:
            break
        # Killed: the key is whole or absent, and nothing else that holds it lies there.
        secret = {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and b"PRIVATE" in path.read_bytes()
        }
        assert secret <= {"team.key"}
        if "team.key" in names:
            keys.private_key(folder / "team.key", None)
    assert at > 2 and names == {"team.key", "team.key.pub"}
    assert (folder / "team.key").stat().st_mode & 0o777 == 0o600


def test_a_disk_without_nameless_files_gets_the_private_half_under_its_name_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.files._linked_secret", lambda *_: False)
    made = keys.new(tmp_path / "team.key")
    assert made.private.stat().st_mode & 0o777 == 0o600
    keys.private_key(made.private, None)
    with pytest.raises(FileExistsError):
        write_secret(made.private, b"x")


@pytest.mark.parametrize(
    ("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o644), (0o027, 0o640)]
)
def test_everything_else_has_the_rights_that_the_mask_leaves(
    tmp_path: Path, mask: int, mode: int
) -> None:
    script = (
        f"import os; os.umask({mask})\n"
        "from pathlib import Path\n"
        "from packager.files import folder_that_appears_whole, write_atomically\n"
        "from packager.shipping.shipment import new_file\n"
        "write_atomically(Path('a'), b'x')\n"
        "with new_file(Path('b')) as file: file.write_bytes(b'x')\n"
        "with folder_that_appears_whole(Path('c')): pass\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in "ab"} == {mode}
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o755 & ~mask


def test_another_verifier_believes_our_signature(package: Path, pair: keys.KeyPair) -> None:
    signature = signed(package, pair)
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        str(package),
        "--signature",
        str(signature),
        "--public_key",
        str(pair.public),
    ]
    done = subprocess.run(
        [*command, "--no-ignore-git-paths"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def flip(folder: Path) -> None:
    data = bytearray((folder / "model/model.bin").read_bytes())
    data[5] ^= 1
    (folder / "model/model.bin").write_bytes(data)


def reseal(folder: Path) -> None:
    """What an attacker without the key does: other weights, and a manifest that says so."""
    flip(folder)
    manifest.write(folder, {**body(folder), "version": "1.4.0"})


def link(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


def git(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("[core]\n")


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (flip, "changed"),
    "a forged manifest": (reseal, "signature"),
    "a renamed file": (lambda f: (f / "README.md").rename(f / "readme.txt"), "renamed"),
    "a missing file": (lambda f: (f / "README.md").unlink(), "missing"),
    "an additional file": (lambda f: (f / "model/extra").write_text("x"), "additional"),
    "an empty folder": (lambda f: (f / "empty").mkdir(), "additional"),
    "a file that can be run": (lambda f: (f / "model/model.bin").chmod(0o755), "mode"),
    "a file that all can write": (lambda f: (f / "model/model.bin").chmod(0o666), "mode"),
    "a link": (link, "link"),
    "content of .git": (git, "additional"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "special"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found(package: Path, pair: keys.KeyPair, what: str) -> None:
    signature = signed(package, pair)
    tamper, kind = TAMPERED[what]
    tamper(package)
    assert kind in {finding.kind for finding in check(package, signature, Trust(pair.public))}


def test_files_that_were_not_signed_are_said_to_be_so_in_words(
    package: Path, pair: keys.KeyPair
) -> None:
    signature = signed(package, pair)
    reseal(package)
    (finding,) = [
        one for one in check(package, signature, Trust(pair.public)) if one.kind == "signature"
    ]
    assert finding.message.endswith("the files are not those that were signed")


def test_the_signature_of_somebody_else_is_none(
    package: Path, pair: keys.KeyPair, tmp_path: Path
) -> None:
    signature = signed(package, pair)
    other = keys.new(tmp_path / "other.key")
    assert [finding.kind for finding in check(package, signature, Trust(other.public))] == [
        "signature"
    ]
    signature.write_bytes(signature.read_bytes().replace(b"a", b"b"))
    assert [finding.kind for finding in check(package, signature, Trust(pair.public))] == [
        "signature"
    ]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b'{"dsseEnvelope": 1}', b"\xff\xfe", b"[" * 5000]
)
def test_what_is_no_signature_proves_nothing(
    package: Path, pair: keys.KeyPair, text: bytes
) -> None:
    (package.parent / "tiny.sig").write_bytes(text)
    assert [
        finding.kind for finding in check(package, package.parent / "tiny.sig", Trust(pair.public))
    ] == ["signature"]


def test_an_old_package_is_refused_however_well_it_is_signed(
    package: Path, pair: keys.KeyPair
) -> None:
    signature = signed(package, pair)
    assert [finding.kind for finding in check(package, signature, Trust(pair.public), "1.10")] == [
        "version"
    ]
    assert check(package, signature, Trust(pair.public), "1.3.9") == []
    assert ordered("1.10") > ordered("1.9.9") and ordered("1") == ordered("1.0.0")
    for wrong in ("", "v1", "1.2.3.4.5", "1..2", "-1", "1.x", "9" * 20):
        with pytest.raises(PackError, match="not a valid version"):
            ordered(wrong)


def test_a_locked_key_takes_its_password_from_the_environment(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = keys.new(tmp_path / "locked.key", "open sesame")
    with pytest.raises(PackError, match="QWEN_PACK_KEY_PASSWORD"):
        signed(package, pair)
    monkeypatch.setenv("QWEN_PACK_KEY_PASSWORD", "wrong")
    with pytest.raises(PackError, match="the password is wrong"):
        signed(package, pair)
    monkeypatch.setenv("QWEN_PACK_KEY_PASSWORD", "open sesame")
    assert check(package, signed(package, pair), Trust(pair.public)) == []


def test_what_is_no_key_is_named(package: Path, pair: keys.KeyPair, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    odd = rsa.generate_private_key(65537, 2048)
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "rsa").write_bytes(odd.private_bytes(*form))
    for name, code in (
        ("text", ExitCode.INPUT),
        ("rsa", ExitCode.INPUT),
        ("absent", ExitCode.USAGE),
    ):
        with pytest.raises(PackError) as caught:
            sign(package, Signer(tmp_path / name), tmp_path / "out.sig")
        assert caught.value.exit_code == code
        with pytest.raises(PackError) as caught:
            check(package, signed_once(package, pair), Trust(tmp_path / name))
        assert caught.value.exit_code == code
    assert not (tmp_path / "out.sig").exists()


def signed_once(package: Path, pair: keys.KeyPair) -> Path:
    place = package.with_name("tiny.sig")
    return place if place.exists() else signed(package, pair)


def test_from_a_new_key_to_a_verified_copy_by_the_command_line(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agreed = ["--allow-dummy", "--accept-license", "unstated"]
    assert main(["keys", "new", str(tmp_path / "k")]) == 0
    assert (
        main(
            [
                "export",
                str(package),
                "--format",
                "zip",
                "--out",
                str(tmp_path / "m.zip"),
                "--sign",
                str(tmp_path / "k"),
                *agreed,
            ]
        )
        == 0
    )
    assert main(["unpack", str(tmp_path / "m.zip"), "--out", str(tmp_path / "copy")]) == 0
    asked = [
        "verify",
        str(tmp_path / "copy"),
        "--key",
        str(tmp_path / "k.pub"),
        "--signature",
        str(tmp_path / "m.zip.sig"),
    ]
    capsys.readouterr()
    assert main([*asked, "--min-version", "1.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True
    assert main([*asked, "--min-version", "2"]) == ExitCode.INPUT
    assert (
        main(["verify", str(tmp_path / "copy"), "--key", str(tmp_path / "k.pub")]) == ExitCode.USAGE
    )
    assert main(["verify", str(tmp_path / "copy"), "--min-version", "1"]) == ExitCode.USAGE
