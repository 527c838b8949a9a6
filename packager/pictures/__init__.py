"""Pictures from outside, as the pixels that a model is shown: what they hold is bounded and looked
at before a decoder sees it, and the decoder works in a process of its own."""

from __future__ import annotations

from packager.pictures.taken import Pixels, take, take_data

__all__ = ["Pixels", "take", "take_data"]
