"""Named values from outside, checked against a dataclass: notebook parameters and keys of a run.

papermill hands over any name with a mere warning, so a notebook checks its parameters itself.
"""

import dataclasses
import json
import types
import typing

from token_geometry.base.errors import InputError, one_of

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
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _IPYTHON
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
    }
    return build(kind, given, noun="parameter")


def build(kind: type, given: dict, *, noun: str):
    """Build a dataclass from named values.

    Parameters
    ----------
    kind
        A dataclass.
    given
        Values by name of a field. A list may come as JSON, since ``papermill -p name '["a", "b"]'``
        hands over a string.
    noun
        What an error message calls a field.

    Raises
    ------
    InputError
        If a name is no field, a field without default is missing, or a value is ill-typed.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise InputError(f"{one_of(noun, name, fields)} (its value was {value!r})")
        values[name] = _from_json(value, hints[name])
        if not _fits(values[name], hints[name]):
            raise InputError(
                f"{noun} {name!r} is {value!r}, of type {type(value).__name__}; accepted: {_spell(hints[name])}"
            )
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if name not in values and not optional:
            raise InputError(f"{noun} {name!r} is missing")
    return kind(**values)


def _from_json(value, hint):
    takes_list = any(_is_list(h) for h in (hint, *typing.get_args(hint)))
    if takes_list and isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _is_list(hint) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(list, origin)


def _fits(value, hint) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if _is_list(hint):
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _spell(hint) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spell(argument) for argument in arguments)
    if _is_list(hint):
        return f"a list of {_spell(arguments[0])}"
    words = {
        int: "a whole number",
        str: "a string",
        bool: "true or false",
        type(None): "None",
        dict: "a mapping",
    }
    return words.get(origin or hint, str(hint))
