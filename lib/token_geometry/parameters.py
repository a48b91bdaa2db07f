"""Parameters of notebooks: papermill hands over any name, so the notebook checks them itself."""

import dataclasses
import json
import types
import typing

from .errors import InputError, one_of

# What IPython puts into a fresh namespace besides names with an underscore.
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def collect(kind: type, namespace: dict):
    """Build a request from the names that a notebook's parameters cells have defined.

    Call it in the first cell after the parameters, with ``globals()``.

    Parameters
    ----------
    kind
        A dataclass whose fields are the notebook's parameters.
    namespace
        The notebook's globals.

    Raises
    ------
    InputError
        If a name is no parameter, or a value has not the type of its field.
    """
    accepted = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _IPYTHON
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
    }
    for name, value in given.items():
        if name not in accepted:
            raise InputError(f"{one_of('parameter', name, accepted)} (its value was {value!r})")
        value = given[name] = _as_list(value, hints[name])
        if not _fits(value, hints[name]):
            raise InputError(
                f"parameter {name!r} is {value!r}, of type {type(value).__name__}; "
                f"accepted: {_spell(hints[name])}"
            )
    missing = [
        name
        for name, field in accepted.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"parameter {missing[0]!r} is missing")
    return kind(**given)


def _as_list(value, hint):
    # `papermill -p name '["a", "b"]'` hands over a string
    may_be_list = "Sequence" in str(hint) or "list" in str(hint)
    if may_be_list and isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _fits(value, hint) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is not None and issubclass(list, origin):
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spell(hint) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spell(argument) for argument in arguments)
    if origin is not None:
        return f"a list of {_spell(arguments[0])}"
    return {int: "a whole number", str: "a string", bool: "true or false", type(None): "None"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )
