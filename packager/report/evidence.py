"""What a manifest's measurements say about the device: several may stand in it, each with the
machine it was taken on."""

from __future__ import annotations

from typing import Any


def on_device(measured: dict[str, Any]) -> bool:
    """Whether a measurement was taken on the device; older packages do not say, and took theirs for
    it."""
    place = measured.get("place")
    return place is None or bool(place.get("on_device"))


def telling(data: dict[str, Any]) -> dict[str, Any] | None:
    """The measurement of a manifest that tells most: the newest on the device, else the one of the
    build, else the newest of all."""
    added = [one for one in data.get("measurements") or [] if isinstance(one, dict)]
    first = data.get("measured") or None
    if first is not None and on_device(first):
        return dict(first)
    there = [one for one in added if on_device(one)]
    found = there[-1] if there else first or (added[-1] if added else None)
    return None if found is None else dict(found)


def seen_on_device(data: dict[str, Any]) -> bool:
    """Whether any measurement of the manifest was taken on the device."""
    found = telling(data)
    return found is not None and on_device(found)
