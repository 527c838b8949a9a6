"""An exported Dockerfile, built by a builder of images: what is in the image, who can read it, and
that a damaged package makes none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.files import sha256
from tests.support.shipping_packages import exported, gguf_package

pytestmark = pytest.mark.slow

BUILDER, BASE = shutil.which("buildah"), shutil.which("busybox")
NOBODY = "65534:65534"
OPT = "/opt/qwen-pack"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export for Docker by somebody whose umask lets nobody else read."""
    made = tmp_path_factory.mktemp("made")
    package = gguf_package(made / "tiny")
    before = os.umask(0o077)
    try:
        return exported(package, "docker", made / "out")
    finally:
        os.umask(before)


def test_whatever_the_umask_takes_away_the_server_of_an_image_can_read_its_files(
    private: Path,
) -> None:
    modes = {path: path.stat().st_mode for path in private.rglob("*")}
    assert len(modes) > 20
    for path, mode in modes.items():
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(mode) == wanted, path


class Images:
    """Images in a folder of their own, made by buildah without a daemon."""

    def __init__(self, folder: Path) -> None:
        places = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._words = [str(BUILDER), "--storage-driver", "vfs", *places]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._words, *words], capture_output=True, text=True, check=False)

    def done(self, *words: str) -> str:
        """What a command prints that ends well."""
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def build(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker build` of a folder, on the base."""
        given = ("--isolation", "chroot", "--build-arg", "BASE_IMAGE=localhost/base:own")
        return self("bud", *given, *words, str(folder))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """With a base image that has a shell and what the Dockerfile calls, and no engine."""
    if BUILDER is None or BASE is None or os.geteuid():
        pytest.skip("buildah and a static busybox, for root, build the images")
    here = Images(tmp_path_factory.mktemp("images"))
    container = here("from", "scratch")
    if container.returncode:
        pytest.skip(f"buildah does not work here: {container.stderr.strip()[-200:]}")
    name = container.stdout.strip()
    for program in ("sh", "cat", "sha256sum"):
        here.done("copy", "--quiet", name, BASE, f"/bin/{program}")
    tried = here("run", "--isolation", "chroot", name, "--", "cat", "/dev/null")
    if tried.returncode:
        pytest.skip(f"nothing runs in an image here: {tried.stderr.strip()[-200:]}")
    here.done("commit", "--quiet", name, "base:own")
    yield here
    here("rm", "--all")
    here("rmi", "--all", "--force")


@pytest.mark.thorough(
    "test_whatever_the_umask_takes_away_the_server_of_an_image_can_read_its_files"
)
def test_an_image_is_built_whose_nobody_reads_the_model_that_was_exported(
    images: Images, private: Path
) -> None:
    for target in ("serve", "llama-server"):
        built = images.build(private, "--target", target, "--tag", f"made:{target}")
        assert built.returncode == 0, built.stderr
        container = images.done("from", f"localhost/made:{target}")
        within = ("run", "--isolation", "chroot", "--user", NOBODY, container, "--")
        model = images.done(*within, "sha256sum", f"{OPT}/package/model/model.gguf")
        assert model.split()[0] == sha256(private / "package" / "model" / "model.gguf")
        config = images.done("inspect", "--format", "{{.OCIv1.Config}}", container)
        assert "65534" in config and "8080" in config
        served = images(*within, "cat", f"{OPT}/serve.py")
        assert (served.returncode == 0) == (target == "serve")


@pytest.mark.thorough(
    "test_whatever_the_umask_takes_away_the_server_of_an_image_can_read_its_files"
)
def test_a_package_that_was_damaged_on_its_way_makes_no_image(
    images: Images, private: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(private, folder)
    with (folder / "package" / "model" / "model.gguf").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    built = images.build(folder, "--tag", "damaged")
    assert built.returncode != 0 and "sha256sum" in built.stderr
    assert images("from", "localhost/damaged").returncode != 0
