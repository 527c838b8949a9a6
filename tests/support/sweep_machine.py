"""A machine of its own beside a shared cache, as a process: `python -m tests.support.sweep_machine
FOLDER NAME URL` sweeps the plan of FOLDER with the runtime of numbers only. The last line tells the
digest of each package, and what was noted."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from packager.events import StageNote
from packager.sweep import inline
from packager.sweep.building import Work, cache_with
from packager.sweep.folder import Folder
from packager.sweep.matrix import matrix
from packager.sweep.plan_file import read
from tests.support.sweeps import dying, through


def main(folder: Path, name: str, url: str) -> None:
    os.environ["QWEN_PACK_CACHE"] = str(folder / f"cache-{name}")
    house = dying()
    plan = read(folder / "plan.toml", house)
    root = Folder.made(folder / name, plan)
    events, run = through(inline.run(Work(plan, matrix(plan, house), root, house, cache_with(url))))
    print(
        json.dumps(
            {
                "digests": {one: row.content_sha256 for one, row in run.rows.items()},
                "reasons": [row.reason for row in run.rows.values() if row.reason],
                "notes": [event.text for event in events if isinstance(event, StageNote)],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
