"""Keep one core busy until the parent is gone or the end has come: a program that a test runs
beside a measurement."""

import os
import sys
import time

parent, until = os.getppid(), time.monotonic() + float(sys.argv[1])
while time.monotonic() < until and os.getppid() == parent:
    for _ in range(100_000):
        pass
