"""What the messages of a request bring besides text, as far as the package takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .parsed import Parsed
from .pictures import PARTS, picture_of
from .refused import Refused
from .settings import Settings
from .sounds import PART, sound_of

OTHER_PARTS = {
    **dict.fromkeys(PARTS, "a picture"),
    PART: "a sound",
    "video_url": "a video",
    "file": "a file",
}
"""Parts of a message that are not text, by OpenAI's names. No address in one is ever asked."""


@dataclass
class Attached:
    """Files in their order; `sees` and `hears` say which of them are taken."""

    sees: bool = False
    hears: bool = False
    pictures: list[bytes] = field(default_factory=list)
    sounds: list[bytes] = field(default_factory=list)

    @classmethod
    def to(cls, settings: Settings) -> Attached:
        """Nothing yet, for the package of these settings."""
        return cls(settings.sees, settings.hears)

    def take(self, part: Parsed, kind: str, index: int) -> dict[str, str]:
        """A part that is not text, as templates take it; its file is kept. Raises Refused for what
        the package does not take, and for a second sound."""
        if kind in PARTS and self.sees:
            self.pictures.append(picture_of(part, index, len(self.pictures)))
            return {"type": "image"}
        if kind == PART and self.hears:
            if self.sounds:
                raise Refused("the request has more than one sound: send each in its own")
            self.sounds.append(sound_of(part, index))
            return {"type": "audio", "audio": ""}
        raise Refused(
            f"messages[{index}] brings {OTHER_PARTS[kind]}, and this model was built for "
            f"{self._built()}"
        )

    def _built(self) -> str:
        if self.sees:
            return "text and pictures"
        return "text and sound" if self.hears else "text alone"
