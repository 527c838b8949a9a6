"""What others wrote, to compare with: llama.cpp's own sources out of the archive of the installed
llama-cpp-python, and packages of the index, kept in a scratch folder."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path


def source(scratch: Path) -> Path:
    """The folder of llama.cpp's sources; pip downloads the archive when it is not there yet."""
    folder = scratch / f"llama_cpp_python-{version('llama-cpp-python')}"
    if not folder.is_dir():
        scratch.mkdir(parents=True, exist_ok=True)
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            # Of this package alone: what pip builds it with may come as wheels.
            "--no-binary",
            "llama-cpp-python",
            "-d",
            str(scratch),
        ]
        subprocess.run([*fetch, f"llama-cpp-python=={version('llama-cpp-python')}"], check=True)
        half = scratch / ".peer-source"
        with tarfile.open(scratch / f"{folder.name}.tar.gz") as archive:
            archive.extractall(half, filter="data")
        (half / folder.name).rename(folder)
        half.rmdir()
    return folder / "vendor" / "llama.cpp"


def unpacked(scratch: Path, requirement: str) -> Path:
    """The folder of a package of the index, which pip downloads without what it needs."""
    name = requirement.replace("-", "_").replace("==", "-")
    folder = scratch / name
    if not folder.is_dir():
        scratch.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
        subprocess.run([*fetch, requirement], check=True)
        (archive,) = (path for path in scratch.glob(f"{name}*") if path.is_file())
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(scratch, filter="data")
    return folder
