"""A machine of the lab as it answered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """One machine: what it answered, or the sentence why it did not and what to do then. `name` is
    empty where the user gave it none; `targets` are the devices that it is, the likeliest first."""

    name: str
    address: str
    reached: bool
    device: str = ""
    memory_bytes: int | None = None
    architecture: str = ""
    error: str = ""
    targets: tuple[str, ...] = ()
    hint: str = ""

    @property
    def label(self) -> str:
        """As `--on` takes it."""
        return self.name or self.address
