"""Predicted against measured, one row per figure: the same rows in the terminal, in a package's
README and on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

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
    predicted = contents.predicted
    if predicted is not None and contents.vision and predicted.image_tokens is None:
        # Older manifests have it there alone.
        predicted = predicted.but(image_tokens=contents.vision.max_image_tokens)
    if predicted is not None and contents.audio and predicted.audio_seconds is None:
        predicted = predicted.but(audio_seconds=contents.audio.max_audio_seconds)
    return rows(contents.measured, contents.artifact_bytes, predicted)


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
            _label(figure, measured, _planned(figure, predicted, measured)),
            figure.unit,
            _predicted(figure, predicted, measured),
            value_of(figure.name, measured, artifact_bytes),
            figure.main,
            figure.name,
            (there or figure.anywhere) and not _planned(figure, predicted, measured),
        )
        for figure in MEASURED
        if figure.name != "decode_tps" or measured is None or measured.task not in _ONE_TEXT
    ]
    return [row for row in table if row.predicted is not None or row.measured is not None]


_ONE_TEXT = {"embed": "vector of a text", "rerank": "score of a pair"}
"""What stands in place of the first token where there is no answer."""


def _label(figure: Figure, measured: Measurement | None, planned: str) -> str:
    """The figure's label, with the length of the prompt or of the context where that is known, and
    what was planned where that is something else."""
    return f"{_measured_label(figure, measured)}{f', predicted for {planned}' if planned else ''}"


def _measured_label(figure: Figure, measured: Measurement | None) -> str:
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
        return f"{figure.label}, with {_with(measured)}"
    if figure.name == "decode_full_tps" and measured and measured.full_context_tokens:
        return f"decode at {measured.full_context_tokens} tokens of context"
    return figure.label


def _with(measured: Measurement) -> str:
    """The sound or the picture that a measurement holds."""
    if measured.audio_seconds:
        return f"a sound of {measured.audio_seconds} s"
    if measured.image_tokens:
        return f"a picture of {measured.image_tokens:,} tokens"
    return "the audio encoder" if measured.audio_load_s is not None else "the image encoder"


def errors_percent(
    measured: Measurement | None, artifact_bytes: int | None, predicted: Predicted | None
) -> dict[str, float | None]:
    """How far every prediction lies above what was measured, in percent; None where one of the two
    is missing."""
    of_encoders = {figure.name for figure in MEASURED if figure.predicted == _OF_ENCODER}
    others = {"image_ttft_ms", "audio_ttft_ms", *of_encoders}
    others -= {_first(measured, predicted), _encoded(measured, predicted)}
    names = [figure.name for figure in MEASURED if figure.predicted and figure.name not in others]
    errors = {
        name: Row(
            "",
            "",
            _predicted(BY_NAME[name], predicted, measured),
            value_of(name, measured, artifact_bytes),
            comparable=not _planned(BY_NAME[name], predicted, measured),
        ).error_percent
        for name in names
    }
    return {name: None if error is None else round(error, 2) for name, error in errors.items()}


def _predicted(
    figure: Figure, predicted: Predicted | None, measured: Measurement | None
) -> float | None:
    """The forecast of a figure. Of a package that takes pictures or sound the one of the first
    token holds a picture or a sound, and that of the encoder is of the same one."""
    if figure.name in _FIRSTS and figure.name != _first(measured, predicted):
        return None
    if figure.predicted == _OF_ENCODER and figure.name != _encoded(measured, predicted):
        return None
    value: object = predicted if figure.predicted else None
    for key in figure.predicted:
        value = getattr(value, key, None)
    return value if isinstance(value, int | float) else None


_FIRSTS = ("image_ttft_ms", "audio_ttft_ms", "ttft_ms")
_OF_SOUND = ("audio_ttft_ms", "audio_encode_ms")
_OF_ENCODER = ("forecast", "encode_ms")


def _planned(figure: Figure, predicted: Predicted | None, measured: Measurement | None) -> str:
    """The picture or sound that a forecast holds, where another one was measured, or none: those
    that take too long or have no room are left out. Empty where both are of the same, or the figure
    holds none."""
    if predicted is None or measured is None or figure.name not in _HOLDING:
        return ""
    if predicted.audio_seconds:
        seconds = predicted.audio_seconds
        return "" if seconds == measured.audio_seconds else f"a sound of {seconds} s"
    tokens = predicted.image_tokens
    # The measured ones are square.
    if not tokens or measured.image_tokens == isqrt(tokens) ** 2:
        return ""
    return f"a picture of {tokens:,} tokens"


_HOLDING = ("peak_memory_bytes", "image_ttft_ms", "audio_ttft_ms", "audio_encode_ms")
"""Figures that hold a picture or a sound, and have a forecast."""


def _encoded(measured: Measurement | None, predicted: Predicted | None) -> str | None:
    """The time of the encoder that the forecast speaks of, where it was measured."""
    if measured is None:
        return None
    if measured.audio_seconds:
        return "audio_encode_ms"
    planned = predicted.image_tokens if predicted else None
    return f"image_encode_{planned or measured.image_tokens}_ms"


def _first(measured: Measurement | None, predicted: Predicted | None) -> str:
    """The time to the first token that the forecast speaks of."""
    if measured is None:
        return "ttft_ms"
    if predicted is not None and predicted.image_tokens:
        return "image_ttft_ms"
    if predicted is not None and predicted.audio_seconds:
        return "audio_ttft_ms"
    return next((name for name in _FIRSTS if getattr(measured, name) is not None), "ttft_ms")
