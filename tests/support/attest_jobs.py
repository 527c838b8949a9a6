"""Folders compared with a checkpoint, in a child process: many in one, as engines load slowly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packager.errors import PackError
from packager.process import resolve
from packager.runtime import Report


def attest_all(
    report: Report, *, engine: str, folders: list[str], checkpoint: str, out: str
) -> dict[str, Any]:
    """What `attest` finds of each folder in the recipe that it is recognised as, or the sentence
    with which it is refused."""
    rows: list[dict[str, Any]] = []
    for number, folder in enumerate(folders):
        try:
            model = resolve(f"targets.{engine}.adopted:adopt")(Path(folder))
            facts = resolve(model.attest)(
                report,
                files=[str(path) for path in model.files],
                checkpoint=checkpoint,
                recipe={"weights": model.recipe.weights, "tensor_types": {}},
                imatrix=None,
                out=str(Path(out, str(number))),
            )
        except PackError as error:
            rows.append({"refused": str(error), "exit_code": error.exit_code})
        else:
            rows.append({"recipe": model.recipe.id, **facts})
    return {"rows": rows}
