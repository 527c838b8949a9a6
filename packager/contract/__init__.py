"""Does a runtime adapter keep the contract of packager/runtime.py? For authors of plug-ins.

    python -m packager.contract NAME                 an installed runtime, by its entry point
    python -m packager.contract my_module:MyRuntime  one that is not installed yet
    python -m packager.contract NAME --build         also build a tiny model and ask its session

In a test of the plug-in's own:

    from packager.contract import build_problems, problems
    assert problems(MyRuntime()) == []
    assert build_problems(MyRuntime(), tmp_path) == []
"""

from packager.contract.built import build_problems
from packager.contract.statements import problems

__all__ = ["build_problems", "problems"]
