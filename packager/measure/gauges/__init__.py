"""What the machine tells about itself while something is measured: load, clock, heat, memory,
energy, page cache.

Every gauge answers None where the machine does not tell; none of them guesses.
"""
