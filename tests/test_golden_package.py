"""A package that was made, signed and pushed with qwen-pack as it was on 22 November 2026, before
what comes from outside was looked at as it is now: it is pulled, verified and run as ever.

tests/golden/pushed-package.zip holds what the registry kept (`manifest`, `blobs/`), the signature
and the public key; the model is a decoder of one layer with random weights, as GGUF.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.package import manifest
from packager.package.verify import verify
from packager.shipping.signature import Trust, check
from tests.conftest import REPOSITORY
from tests.support.oci_registry import lying_registry

GOLDEN = REPOSITORY / "tests" / "golden" / "pushed-package.zip"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package, as `tiny`, its signature and its key."""
    folder = tmp_path_factory.mktemp("golden")
    answers: dict[str, Any] = {}
    with zipfile.ZipFile(GOLDEN) as kept:
        media = {"Content-Type": json.loads(kept.read("manifest"))["mediaType"]}
        answers["/v2/team/tiny/manifests/1.0"] = (200, media, kept.read("manifest"))
        for name in kept.namelist():
            if name.startswith("blobs/"):
                path = f"/v2/team/tiny/blobs/sha256:{name.removeprefix('blobs/')}"
                answers[path] = (200, {}, kept.read(name))
        for name in ("tiny.sig", "team.key.pub"):
            (folder / name).write_bytes(kept.read(name))
    with lying_registry(answers) as host:
        out = str(folder / "tiny")
        assert main(["pull", f"{host}/team/tiny:1.0", "--out", out]) == ExitCode.DONE
    yield folder


def test_a_package_of_an_earlier_version_is_pulled_and_whole(pulled: Path) -> None:
    assert verify(pulled / "tiny") == []
    assert manifest.read(pulled / "tiny").contents.version == "1.0.0"


def test_its_signature_holds_and_no_other_version_is_taken_for_it(pulled: Path) -> None:
    pytest.importorskip("model_signing")
    signature, trust = pulled / "tiny.sig", Trust(pulled / "team.key.pub")
    assert check(pulled / "tiny", signature, trust, "1.0") == []
    assert [one.kind for one in check(pulled / "tiny", signature, trust, "1.1")] == ["version"]


@pytest.mark.engine
def test_it_answers(pulled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_cpp")
    words = ["run", str(pulled / "tiny"), "hello", "--max-tokens", "4"]
    assert main(words) == ExitCode.DONE
    # Random weights say anything, and line breaks too.
    assert len(capsys.readouterr().out) > 1
