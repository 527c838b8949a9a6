"""Answer one prompt with a finished package: jobs for a child process that speak as they decode."""

from __future__ import annotations

from packager.errors import usage
from packager.hearing import AudioSession
from packager.json_values import JsonObject, at
from packager.measure import prefix as prefixes
from packager.measure import speculation as drafts
from packager.measure.dictation import Dictated, heard_pieces, room_for
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session, VisionSession
from packager.shape.audio import RATE
from packager.sounds.prompt import Transcript


def answer(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    prompt: str,
    max_new_tokens: int,
    prefix: JsonObject | None = None,
    speculation: JsonObject | None = None,
) -> JsonObject:
    """Decode greedily until the end of the turn; pieces of text go out through `report.text` as
    they are sure. `prefix` is what packager.measure.prefix.keep takes, for a warm start;
    `speculation` what packager.measure.speculation.way gives, with the number of tokens `drafted`
    in a step.

    Returns the text, the token ids and how many tokens the prompt had.
    """
    if speculation is not None:
        settings = {**settings, "speculation": speculation}
    model: Session = resolve(session)(artifact, settings)
    speaker = _Speaker(report, model)
    try:
        prompt_ids = model.encode(prompt)
        if not prompt_ids:
            raise usage("The prompt is empty.", "Give a prompt.")
        most = room_for(len(prompt_ids), at(settings, "context", int), max_new_tokens)
        warm = prefix is not None and prefixes.keep(model, prefix)
        if speculation is None:
            model.generate(prompt_ids, most, speaker.on_token)
        else:
            drafts.answer(model, speculation, prompt_ids, most, speaker.on_token)
        text = speaker.end()
        if warm and isinstance(model, prefixes.KeepsPrefix) and model.prefix_note:
            report.note(model.prefix_note)
    finally:
        model.close()
    return {"text": text, "tokens": speaker.ids, "prompt_tokens": len(prompt_ids)}


def look(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    texts: list[str],
    pictures: list[JsonObject],
    max_new_tokens: int,
) -> JsonObject:
    """The same for a prompt with pictures, see packager.session.VisionSession.look. Returns also
    how many tokens of the prompt are the pictures', and the seconds that encoding them took."""
    model: VisionSession = resolve(session)(artifact, settings)
    speaker = _Speaker(report, model)
    try:
        tokens = model.prompt_tokens(texts, pictures)
        most = room_for(tokens, at(settings, "context", int), max_new_tokens)
        seen = model.look(texts, pictures, most, speaker.on_token)
        text = speaker.end()
    finally:
        model.close()
    return {
        "text": text,
        "tokens": speaker.ids,
        "prompt_tokens": seen.prompt_tokens,
        "image_tokens": seen.image_tokens,
        "encode_s": seen.encode_s,
    }


def hear(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: JsonObject,
    texts: list[str],
    sound: JsonObject,
    seconds: int,
    max_new_tokens: int,
    asked: bool = False,
) -> JsonObject:
    """Write down what is said in a sound (packager.sounds.Samples), in pieces of at most `seconds`,
    each with the same text before and after it and from a cold cache. With `asked` the texts are a
    question about a sound that is not cut.

    Returns the text, the token ids, how many tokens the prompts had and how many of those are the
    sound's, the seconds that encoding took, and the language of the first piece where it says one.
    """
    model: AudioSession = resolve(session)(artifact, settings)
    whole = Dictated()
    saying = _Dictation(report, model)
    context = at(settings, "context", int)
    try:
        for piece in heard_pieces(
            model, texts, sound, seconds, context, max_new_tokens, saying.on_token
        ):
            transcript = saying.end()
            if len(piece.heard.tokens) == piece.most:
                what = f"text of seconds {piece.start / RATE:.1f} to {piece.end / RATE:.1f}"
                report.note(
                    f"The {'answer' if asked else what} ends after {piece.most} tokens"
                    f"{'.' if asked else '; more is said there.'}"
                )
            report.text(" " if piece.end < at(sound, "count", int) else "")
            whole.add(piece, transcript)
    finally:
        model.close()
    return {
        "text": whole.text,
        "tokens": whole.tokens,
        "prompt_tokens": whole.prompt_tokens,
        "audio_tokens": whole.audio_tokens,
        "encode_s": whole.encode_s,
        "language": whole.language,
    }


class _Filtered:
    """A report whose text is what a transcript lets through."""

    def __init__(self, report: Report, transcript: Transcript) -> None:
        self._report, self._transcript = report, transcript

    def note(self, text: str) -> None:
        """See packager.runtime.Report."""
        self._report.note(text)

    def progress(self, done: int, total: int | None, unit: str = "bytes") -> None:
        """See packager.runtime.Report."""
        self._report.progress(done, total, unit)

    def text(self, piece: str) -> None:
        """What is said of one more piece."""
        spoken = self._transcript.add(piece)
        if spoken:
            self._report.text(spoken)


class _Speaker:
    """Says an answer piece by piece."""

    def __init__(self, report: Report, model: Session) -> None:
        self._report, self._model = report, model
        self.ids: list[int] = []
        self._pending: list[int] = []

    def on_token(self, token: int) -> None:
        """Say what is sure with one more token."""
        self.ids.append(token)
        self._pending.append(token)
        text = self._model.decode(self._pending)
        # The last bytes of a character may still be on their way: they decode to the replacement
        # sign until then.
        if not text.endswith("\ufffd"):
            self._report.text(text)
            self._pending.clear()

    def end(self) -> str:
        """Say what is left; the whole answer."""
        if self._pending:
            self._report.text(self._model.decode(self._pending))
        return self._model.decode(self.ids) if self.ids else ""


class _Dictation:
    """Says what is said in a sound, piece by piece."""

    def __init__(self, report: Report, model: Session) -> None:
        self._report, self._model = report, model
        self._begin()

    def _begin(self) -> None:
        self._transcript = Transcript()
        self._speaker = _Speaker(_Filtered(self._report, self._transcript), self._model)

    def on_token(self, token: int) -> None:
        """Say what is sure with one more token."""
        self._speaker.on_token(token)

    def end(self) -> Transcript:
        """Say what is left of a piece; what became of it."""
        self._speaker.end()
        rest, done = self._transcript.end(), self._transcript
        if rest:
            self._report.text(rest)
        self._begin()
        return done
