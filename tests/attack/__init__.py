"""A campaign against everything that reads what comes from outside: `python -m tests.attack`.

Mutants of every kind of input in forked workers of bounded memory, commands killed at random
moments, hubs and registries that lie, full disks, low limits, and a soak. All of it follows from
one seed; the last thing that is printed is one JSON object.
"""
