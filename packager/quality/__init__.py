"""The quality gate: an artifact against the unquantized checkpoint it was made from, by its own
engine.

First it must speak the same language (packager.quality.parity), then its logits may lie only so far
from the checkpoint's.

text.py          what is read: six parts that ship with qwen-pack, or the user's file metrics.py
divergence, agreement, perplexity of one model against another, token by token job.py           the
stage's two jobs: the reference, kept per checkpoint and text; the artifact against it thresholds.py
how much each class of recipes may lose, as data with sources verdict.py       what the figures mean
for the build
"""

VERSION = 6
"""Raised when the same artifact and text would give other figures: kept ones of older versions are
not used."""
