"""What the unquantized checkpoint says: its forward pass in float32, written out in numpy, without
any engine.

It is the yardstick of every quantized artifact, so it is plain rather than fast: one layer after
the other over all sequences, weights read as they are needed, no cache of keys and values. What it
keeps is the state behind the last norm, about 150 times smaller at a width of 1,024 than the
log-probabilities, which are made from it block by block.

memory_bytes(shape, lengths)                         the most that it takes
Reference.compute(checkpoint, sequences, report)     run it Reference.save(path, key),
Reference.load(...)       keep it Reference.blocks()
log-probabilities over the vocabulary, a few hundred tokens at a time
"""

from __future__ import annotations

from packager.reference.forward import hidden_states
from packager.reference.room import memory_bytes
from packager.reference.states import Block, Reference

__all__ = ["Block", "Reference", "hidden_states", "memory_bytes"]
