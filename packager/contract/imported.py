"""Prints, as JSON, the top-level names of all modules that importing one module loads."""

from __future__ import annotations

import importlib
import json
import sys

if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
