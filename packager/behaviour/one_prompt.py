"""Answer one prompt with a finished package: a job for a child process that speaks as it
decodes."""

from __future__ import annotations

from packager.errors import usage
from packager.json_values import JsonObject, at
from packager.process import resolve
from packager.runtime import Report, Session


def answer(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    prompt: str,
    max_new_tokens: int,
) -> JsonObject:
    """Decode greedily until the end of the turn; pieces of text go out through `report.text` as
    they are sure.

    Returns the text, the token ids and how many tokens the prompt had.
    """
    model: Session = resolve(session)(artifact, settings)
    ids: list[int] = []
    pending: list[int] = []

    def on_token(token: int) -> None:
        ids.append(token)
        pending.append(token)
        text = model.decode(pending)
        # The last bytes of a character may still be on their way: they decode to the replacement
        # sign until then.
        if not text.endswith("\ufffd"):
            report.text(text)
            pending.clear()

    try:
        prompt_ids = model.encode(prompt)
        if not prompt_ids:
            raise usage("The prompt is empty.", "Say something to the model.")
        context = at(settings, "context", int)
        room = context - len(prompt_ids)
        if room < 1:
            raise usage(
                f"The prompt has {len(prompt_ids)} tokens and the package's context is {context}.",
                "Shorten it.",
            )
        model.generate(prompt_ids, min(max_new_tokens, room), on_token)
        if pending:
            report.text(model.decode(pending))
        text = model.decode(ids) if ids else ""
    finally:
        model.close()
    return {"text": text, "tokens": ids, "prompt_tokens": len(prompt_ids)}
