"""ModelScope's own client beside the source here, against one server on loopback.

    python benchmarks/modelscope_client.py --scratch FOLDER

pip downloads the client. Each fetches a repository into an empty cache that the other then uses.
The client keeps a folder for each name of a revision, and is told the commit where it comes second.
The last line is one JSON object: how many files of the checkpoint the server was asked for by the
first and by the second, and whether all hand back the same bytes, offline too. The second has to
ask for none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer import unpacked
from packager.checkpoint import Checkpoint
from packager.digests import key_of
from packager.files import sha256
from packager.sources import modelscope
from tests.support.hub_server import repository
from tests.support.make_checkpoint import Silent, write_tiny
from tests.support.modelscope_server import COMMIT, ModelScope, serve

CLIENT = "modelscope-hub==0.5.1"
REPO = "Qwen/Tiny-1.5"
FETCH = """
import sys
from modelscope_hub.compat.snapshot_download import snapshot_download
repository, revision, offline = sys.argv[1:]
print(snapshot_download(repository, revision=revision or None, local_files_only=offline == "yes"))
"""


def by_client(package: Path, *, revision: str = "", offline: bool = False) -> Path:
    """The folder that ModelScope's client hands back."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, REPO, revision, "yes" if offline else "no"],
        env={**os.environ, "PYTHONPATH": str(package)},
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(done.stdout.strip().splitlines()[-1])


def by_us(shape: dict[str, Any], *, revision: str = "", offline: bool = False) -> Path:
    """The folder that the source hands to a build."""
    facts = modelscope.fetch(
        Silent(),
        repo_id=REPO,
        revision=revision or None,
        shape=shape,
        offline=offline,
        out="unused",
    )
    return Path(str(facts["folder"]))


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Of the files of the checkpoint."""
    return {name: sha256(folder / name) for name in names}


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    scratch = parser.parse_args().scratch.resolve()
    checkpoint, package = scratch / "checkpoint", unpacked(scratch, CLIENT)
    if not checkpoint.is_dir():
        write_tiny(checkpoint)
    shape = asdict(Checkpoint.open(checkpoint).shape)
    files = {"configuration.json": b"{}", **repository(checkpoint)}
    ways: dict[str, Callable[..., Path]] = {
        "ModelScope's client": lambda **how: by_client(package, **how),
        "qwen-pack": lambda **how: by_us(shape, **how),
    }
    os.environ |= {"NO_PROXY": "*", "MODELSCOPE_LOG_LEVEL": "40"}
    rows = []
    for first, second in (tuple(ways), tuple(reversed(ways))):
        with serve(ModelScope(REPO, files)) as site:
            os.environ["MODELSCOPE_ENDPOINT"] = site.endpoint
            os.environ["MODELSCOPE_CACHE"] = str(
                scratch / f"cache-{key_of([first, site.endpoint])}"
            )
            names = sorted(repository(checkpoint))
            counts, read = [], []
            for way, revision in ((first, ""), (second, COMMIT)):
                before = sum(map(site.bodies, names))
                read.append(digests(ways[way](revision=revision), names))
                counts.append(sum(map(site.bodies, names)) - before)
            read += [digests(way(offline=True), names) for way in ways.values()]
        rows.append(
            {
                "first": first,
                "second": second,
                "files_asked_for": counts,
                "same": all(row == digests(checkpoint, names) for row in read),
            }
        )
        print(rows[-1])
    print(json.dumps({"client": CLIENT, "rows": rows}))
    return 0 if all(row["same"] and row["files_asked_for"][1] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
