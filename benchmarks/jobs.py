"""Work that benchmarks do in a child process."""

from __future__ import annotations

from typing import Any

from packager.process import resolve
from packager.runtime import Report, Session
from packager.smoke import prompt_ids


def fill_context(
    report: Report, *, session: str, artifact: str, settings: dict[str, Any], prompt_tokens: int, new_tokens: int
) -> dict[str, Any]:
    """Load a model and answer one prompt with `new_tokens` tokens; the caller reads the peak memory of this process."""
    model: Session = resolve(session)(artifact, settings)
    try:
        answer = model.generate(prompt_ids(model, prompt_tokens, 1), new_tokens, lambda token: None, stop=False)
    finally:
        model.close()
    return {"answered": len(answer)}
