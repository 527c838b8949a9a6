"""Answer one prompt with a finished package: a job for a child process that speaks as it decodes."""

from __future__ import annotations

from typing import Any

from packager.errors import usage
from packager.process import resolve
from packager.runtime import Report, Session


def answer(report: Report, *, session: str, artifact: str, settings: dict[str, Any], prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """Decode greedily until the end of the turn; pieces of text go out through `report.text` as they are sure.

    Returns the text, the token ids and how many tokens the prompt had.
    """
    model: Session = resolve(session)(artifact, settings)
    ids: list[int] = []
    shown = ""

    def on_token(token: int) -> None:
        nonlocal shown
        ids.append(token)
        text = model.decode(ids)
        # The last bytes of a character may still be on their way: they decode to the replacement sign until then.
        if not text.endswith("\ufffd") and text.startswith(shown):
            report.text(text[len(shown) :])
            shown = text

    try:
        prompt_ids = model.encode(prompt)
        room = settings["context"] - len(prompt_ids)
        if room < 1:
            raise usage(f"The prompt has {len(prompt_ids)} tokens and the package's context is {settings['context']}.", "Shorten it.")
        model.generate(prompt_ids, min(max_new_tokens, room), on_token)
        text = model.decode(ids)
        if text.startswith(shown):
            report.text(text[len(shown) :])
    finally:
        model.close()
    return {"text": text, "tokens": ids, "prompt_tokens": len(prompt_ids)}
