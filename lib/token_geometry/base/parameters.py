"""Named values from outside, checked against a dataclass: notebook parameters and keys of a run.

papermill hands over any name with a mere warning, so a notebook checks its parameters itself.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable

import yaml

from token_geometry.base.errors import InputError, one_of

Kind = typing.TypeVar("Kind")

# What IPython puts into a fresh namespace besides names with an underscore.
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def collect(kind: type[Kind], namespace: dict) -> Kind:
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


def build(kind: type[Kind], given: dict, *, noun: str) -> Kind:
    """Build a dataclass from named values.

    Parameters
    ----------
    kind
        A dataclass. Names that fields had before stand in its attribute `old_names`, if it has one.
    given
        Values by name of a field. Lists, `true`, `false` and `none` may come as strings, since ``papermill -p``
        hands them over so.
    noun
        What an error message calls a field.

    Raises
    ------
    InputError
        If a name is no field, a field without default is missing, or a value is ill-typed.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    given = _renamed(kind, given, noun)
    refuse_unknown(given, fields, noun=noun)
    values = {name: _read(value, hints[name]) for name, value in given.items()}
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise InputError(
                f"{noun} {name!r} is {value!r}, of type {type(value).__name__}; "
                f"accepted: {_spell(hints[name], value)}"
                f"{_way_out(name, value, hints[name])}"
            )
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if name not in values and not optional:
            raise InputError(f"{noun} {name!r} is missing")
    return kind(**values)


def refuse_unknown(given: dict, accepted: Iterable[str], *, noun: str) -> None:
    """Refuse the first of the given names that is none of the accepted ones.

    Raises
    ------
    InputError
        With the nearest accepted name.
    """
    accepted = list(accepted)
    for name, value in given.items():
        if name not in accepted:
            raise InputError(f"{one_of(noun, name, accepted)} (its value was {value!r})")


def _renamed(kind: type, given: dict, noun: str) -> dict:
    """The values under the names of today; a notebook's default under today's name gives way to an old name."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    given = dict(given)
    for old, new in getattr(kind, "old_names", {}).items():
        if old not in given:
            continue
        value = given.pop(old)
        if given.get(new, defaults[new]) != defaults[new]:
            raise InputError(f"{noun} {old!r} is the old name of {new!r}, and both are given: leave {old!r} out")
        print(f"{noun} {old!r} is an old name, and is taken for {new!r}: write {new} = {value!r}")
        given[new] = value
    return given


def _read(value, hint):
    """The value that a string from a command line stands for, where the field takes no string."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if not isinstance(value, str):
        return value
    words: dict[str, bool | None] = {"true": True, "false": False} if bool in kinds else {}
    if type(None) in kinds and str not in kinds:
        words |= {"none": None, "null": None}
    if any(_is_list(kind) for kind in kinds) and value.startswith("["):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return words.get(value.lower(), value)


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


def _spell(hint, value, *, many: bool = False) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spell(argument, value, many=many) for argument in arguments)
    if _is_list(hint):
        example = json.dumps(
            [value] if _fits(value, arguments[0]) else [0, 1] if _fits(0, arguments[0]) else ["a"]
        )
        return f"a list of {_spell(arguments[0], value, many=True)}, such as '{example}'"
    one, several = {
        int: ("a whole number", "whole numbers"),
        str: ("a string", "strings"),
        bool: ("true or false", "true or false"),
        type(None): ("None", "None"),
        dict: ("a mapping", "mappings"),
    }.get(origin or hint, (str(hint), str(hint)))
    return several if many else one


def _way_out(name: str, value, hint) -> str:
    # papermill's -p makes a number of whatever looks like one, and 1 of 001
    if hint is str and isinstance(value, int | float):
        return f" (papermill's -p makes a number of it: write -r {name} …, which keeps a string)"
    return ""
