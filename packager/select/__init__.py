"""Selection: from a workload and a target to every candidate with its verdict, the reasons, and the
choice.

judged = candidates(target, workload, catalog.load(), runtimes)
choose(judged)           the best that passes every rule, or None

What few ask for stands in modules that only they import:

none_fits   where nothing passes: that, as one sentence
misses      where nothing passes: the one change that would make each of the nearest fit
elsewhere   where nothing passes: a larger device, several accelerators or a service for it
steps       the next variant down and up, what each costs and gains
"""

from packager.select.candidate import Candidate, Reason
from packager.select.engine import candidates, choose

__all__ = ["Candidate", "Reason", "candidates", "choose"]
