"""Sounds from outside, as the samples that a model is given: what they hold is bounded and looked
at before a decoder reads it, and the decoder works in a process of its own."""

from __future__ import annotations

from packager.sounds.taken import Samples, take, take_data

__all__ = ["Samples", "take", "take_data"]
