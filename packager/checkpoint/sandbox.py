"""Jinja's immutable sandbox, in which nothing but data can be printed.

The sandbox of the library keeps a template from acting; it still lets it print what the host's
objects look like (a bound method, an iterator, a class), and with that addresses of the process.
Here every object that is not data raises when it becomes text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, Undefined
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_DATA = (str, int, float, bool, type(None), Undefined, range)
_INNER = (Namespace, Macro, LoopContext, Cycler, Joiner)
_GENERIC = "it prints an object that is not data"


class _Hidden:
    """A function or method: it can be called, and tested for being one, and is never text."""

    __slots__ = ("_wrapped",)

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Only the environment calls it, after it has looked at what is behind it."""
        raise SecurityError("a function was called past the sandbox")

    def _refuse(self, *_: Any) -> NoReturn:
        raise SecurityError(_GENERIC)

    __str__ = __repr__ = __format__ = __html__ = _refuse


class _Lazy(_Hidden):
    """An iterator, as filters leave them: it can be gone through, and is never text."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._wrapped)


class _Cycler(Cycler):
    """The library's shows its address when it becomes text."""

    __str__ = __repr__ = __format__ = _Hidden._refuse


class _Joiner(Joiner):
    """The library's shows its address when it becomes text."""

    __str__ = __repr__ = __format__ = _Hidden._refuse


class _Generation(Extension):
    """Blocks that mark what the model says, for training: rendered as what stands in them."""

    tags = {"generation"}  # noqa: RUF012  (the base class asks for a set)

    def parse(self, parser: Any) -> Any:
        """One block, whose body is rendered as it is."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller: Any) -> str:
        return str(caller())


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates, as the publishers write them for transformers 5
    (utils/chat_template_utils.py)."""

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_data_only,
        )
        self.filters["tojson"] = _to_json
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "cycler": _Cycler,
            "joiner": _Joiner,
        }
        self.filters = {name: _hiding(function) for name, function in self.filters.items()}
        self.globals = {name: _hidden(value) for name, value in self.globals.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As the library's, but a method comes back hidden."""
        return _hidden(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As the library's, but a method comes back hidden."""
        return _hidden(super().getitem(obj, argument))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """As the library's, with what is hidden behind the object; what comes back is hidden where
        it is no data."""
        target = __obj._wrapped if type(__obj) is _Hidden else __obj
        return _hidden(super().call(__context, target, *args, **kwargs))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _hidden(value: Any) -> Any:
    """The value; a function, class or iterator in its disguise."""
    if isinstance(value, (*_DATA, *_VIEWS, *_INNER, _Hidden)):
        return value
    if callable(value):
        return _Hidden(value)
    return _Lazy(value) if isinstance(value, Iterator) else value


def _hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is hidden where it is no data; it keeps the marks by which the library
    hands it its context."""

    @functools.wraps(function)
    def inner(*arguments: Any, **named: Any) -> Any:
        return _hidden(function(*arguments, **named))

    return inner


def _data_only(value: Any) -> Any:
    """What an expression prints. Raises SecurityError where that is no data, or holds what is
    none."""
    if isinstance(value, _DATA):
        return value
    if isinstance(value, _VIEWS):
        views: Any = value
        _data_only(list(views))
        return value
    if isinstance(value, list | tuple):
        for item in value:
            _data_only(item)
        return value
    if isinstance(value, dict):
        for key, item in value.items():
            _data_only(key)
            _data_only(item)
        return value
    raise SecurityError(_GENERIC)
