"""Selection: from a workload and a target to every candidate with its verdict, the reasons, and the
choice.

found = candidates(target, workload, catalog.load(), runtimes) choose(found)            the best
that passes every rule, or None none_fits(...)           where nothing passes: that, as one sentence
nearest_misses(...)      where nothing passes: the one change that would make each of the nearest
fit elsewhere(...)       where nothing passes: a larger device, several accelerators or a service
that would run it steps(found)             the next variant down and up, what each costs and gains
"""

from packager.select.candidate import Candidate, Reason
from packager.select.elsewhere import Elsewhere, elsewhere
from packager.select.engine import candidates, choose
from packager.select.misses import Miss, larger_than, nearest_misses
from packager.select.none_fits import none_fits, unserved
from packager.select.steps import Step, steps

__all__ = [
    "Candidate",
    "Elsewhere",
    "Miss",
    "Reason",
    "Step",
    "candidates",
    "choose",
    "elsewhere",
    "larger_than",
    "nearest_misses",
    "none_fits",
    "steps",
    "unserved",
]
