"""llama.cpp's own sources, to compare with: out of the archive of the installed llama-cpp-python,
kept in a scratch folder."""

from __future__ import annotations

import subprocess
import sys
import tarfile
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
            "--no-binary",
            ":all:",
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
