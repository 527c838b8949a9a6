"""Predicted against measured, one row per figure: the same rows in the terminal, in a package's
README and on the screen."""

from __future__ import annotations

from dataclasses import dataclass

from packager.records import Contents, Measurement
from packager.records.contents import Predicted
from packager.records.figures import BY_NAME, MEASURED, Figure
from packager.report.budgets import quantity


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, None where it is not known; `main` for those that a short table shows,
    `comparable` where both are of one machine."""

    label: str
    unit: str
    predicted: float | None
    measured: float | None
    main: bool = False
    name: str = ""
    comparable: bool = True

    @property
    def error_percent(self) -> float | None:
        """How far the prediction lies above what was measured; None where the two are of different
        machines."""
        if self.predicted is None or not self.measured or not self.comparable:
            return None
        return 100 * (self.predicted / self.measured - 1)

    def texts(self) -> tuple[str, str, str]:
        """Predicted, measured and error as people read them, empty where there is none."""
        before, now = (
            "" if value is None else shown(value, self.unit)
            for value in (self.predicted, self.measured)
        )
        return before, now, "" if self.error_percent is None else f"{self.error_percent:+.0f} %"


def shown(value: float, unit: str) -> str:
    """A number with its unit; joules are small."""
    return f"{value:.3g} J" if unit == "J" else quantity(value, unit)


def value_of(name: str, measured: Measurement | None, artifact_bytes: int | None) -> float | None:
    """A figure of records.figures.MEASURED by its name; None where it is not known."""
    if name == "artifact_bytes":
        return artifact_bytes
    if measured is None:
        return None
    holder = measured.energy if name.startswith("joules_") else measured
    value: float | None = getattr(holder, name, None)
    return value


def rows_of(contents: Contents) -> list[Row]:
    """The rows of a manifest, with the measurement of its build."""
    return rows(contents.measured, contents.artifact_bytes, contents.predicted)


def rows(
    measured: Measurement | None,
    artifact_bytes: int | None = None,
    predicted: Predicted | None = None,
) -> list[Row]:
    """One row per figure; what is neither predicted nor measured is left out."""
    # The files are the same on every machine; what was measured elsewhere is no check of a
    # prediction for the device.
    there = measured is None or measured.on_device
    table = [
        Row(
            _label(figure, measured),
            figure.unit,
            _predicted(figure, predicted, measured),
            value_of(figure.name, measured, artifact_bytes),
            figure.main,
            figure.name,
            there or figure.anywhere,
        )
        for figure in MEASURED
        if figure.name != "decode_tps" or measured is None or measured.task not in _ONE_TEXT
    ]
    return [row for row in table if row.predicted is not None or row.measured is not None]


_ONE_TEXT = {"embed": "vector of a text", "rerank": "score of a pair"}
"""What stands in place of the first token where there is no answer."""


def _label(figure: Figure, measured: Measurement | None) -> str:
    """The figure's label, with the length of the prompt or of the context where that is known."""
    if measured and measured.task in _ONE_TEXT and figure.name.startswith("ttft_ms"):
        rest = figure.label.removeprefix(BY_NAME["ttft_ms"].label)
        return f"{_ONE_TEXT[measured.task]}, {measured.prompt_tokens} tokens{rest}"
    if figure.name == "ttft_ms" and measured and measured.prompt_tokens:
        return f"{figure.label}, {measured.prompt_tokens} tokens"
    if figure.name == "image_ttft_ms" and measured and measured.image_tokens:
        return f"first token with a picture of {measured.image_tokens:,} tokens"
    if figure.name in _OF_SOUND and measured and measured.audio_seconds:
        return f"{figure.label} of {measured.audio_seconds} s"
    if figure.name == "peak_memory_bytes" and measured and measured.text_peak_memory_bytes:
        return f"{figure.label}, with a {'sound' if measured.audio_seconds else 'picture'}"
    if figure.name == "decode_full_tps" and measured and measured.full_context_tokens:
        return f"decode at {measured.full_context_tokens} tokens of context"
    return figure.label


def errors_percent(
    measured: Measurement | None, artifact_bytes: int | None, predicted: Predicted | None
) -> dict[str, float | None]:
    """How far every prediction lies above what was measured, in percent; None where one of the two
    is missing."""
    of_encoders = {figure.name for figure in MEASURED if figure.predicted == _OF_ENCODER}
    others = {"image_ttft_ms", "audio_ttft_ms", *of_encoders}
    others -= {_first(measured), _encoded(measured)}
    names = [figure.name for figure in MEASURED if figure.predicted and figure.name not in others]
    errors = {
        name: Row(
            "",
            "",
            _predicted(BY_NAME[name], predicted, measured),
            value_of(name, measured, artifact_bytes),
        ).error_percent
        for name in names
    }
    return {name: None if error is None else round(error, 2) for name, error in errors.items()}


def _predicted(
    figure: Figure, predicted: Predicted | None, measured: Measurement | None
) -> float | None:
    """The forecast of a figure. Of a package that takes pictures or sound the one of the first
    token holds a picture or a sound, and that of the encoder is of the same one."""
    if figure.name in _FIRSTS and figure.name != _first(measured):
        return None
    if figure.predicted == _OF_ENCODER and figure.name != _encoded(measured):
        return None
    value: object = predicted if figure.predicted else None
    for key in figure.predicted:
        value = getattr(value, key, None)
    return value if isinstance(value, int | float) else None


_FIRSTS = ("image_ttft_ms", "audio_ttft_ms", "ttft_ms")
_OF_SOUND = ("audio_ttft_ms", "audio_encode_ms")
_OF_ENCODER = ("forecast", "encode_ms")


def _encoded(measured: Measurement | None) -> str | None:
    """The time of the encoder that the forecast speaks of, where it was measured."""
    if measured is None:
        return None
    return (
        "audio_encode_ms" if measured.audio_seconds else f"image_encode_{measured.image_tokens}_ms"
    )


def _first(measured: Measurement | None) -> str:
    """The time to the first token that the forecast speaks of."""
    if measured is None:
        return "ttft_ms"
    return next((name for name in _FIRSTS if getattr(measured, name) is not None), "ttft_ms")
