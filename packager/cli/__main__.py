"""`python -m packager.cli`: the same as the `qwen-pack` script."""

import sys

from packager.cli import main

if __name__ == "__main__":  # a worker of a cluster imports its parent's main module
    sys.exit(main())
