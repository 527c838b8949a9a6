"""A download from the hub as a build does it, in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packager import sources
from packager.errors import ExitCode, PackError
from packager.process import JobResult, Progress, run_job
from tests.support.make_checkpoint import tiny_shape

REPO = "Qwen/Qwen3-Tiny"
WEIGHTS = "model.safetensors"


class Fetch:
    """Run the hub's job as a build does, with a hub cache and settings of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.home = folder / "hf"
        self.log = folder / "fetch.log"
        self.env = {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
        }
        self.progress: list[Progress] = []

    def __call__(
        self, revision: str | None = None, repo_id: str = REPO, offline: bool = False, **env: str
    ) -> dict[str, Any]:
        source = sources.parse("hub", repo_id, revision, offline)
        job, arguments = sources.job(source, tiny_shape())
        run = run_job(
            job, {**arguments, "out": str(self.home / "unused")}, self.log, {**self.env, **env}
        )
        self.progress = []
        while True:
            try:
                message = next(run)
            except StopIteration as stop:
                result: JobResult = stop.value
                return result.value
            if isinstance(message, Progress):
                self.progress.append(message)

    def fails(self, exit_code: ExitCode, *words: str, **arguments: Any) -> PackError:
        with pytest.raises(PackError) as caught:
            self(**arguments)
        assert caught.value.exit_code == exit_code
        for word in words:
            assert word in str(caught.value)
        return caught.value

    def cached(self) -> list[str]:
        """Names of the files in snapshots."""
        return sorted(path.name for path in self.home.glob("hub/models--*/snapshots/*/*"))

    def partial_bytes(self) -> int:
        return sum(
            path.stat().st_size for path in self.home.glob("hub/models--*/blobs/*.incomplete")
        )

    def blobs(self) -> set[str]:
        return {path.name for path in self.home.glob("hub/models--*/blobs/*")}
