"""`python -m packager.cli`: the same as the `qwen-pack` script."""

import sys

from packager.cli import main

sys.exit(main())
