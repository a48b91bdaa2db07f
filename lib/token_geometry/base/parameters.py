"""Named values from outside, checked against a dataclass: notebook parameters, options, keys of a run.

papermill hands over any name with a mere warning, so a notebook checks its parameters itself."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping

import yaml

from token_geometry.base import InputError, one_of

Kind = typing.TypeVar("Kind")

# What IPython puts into a fresh namespace besides names with an underscore.
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}

# a type → one value of it
_SPELLED = {int: "a whole number", str: "a string", dict: "a mapping", bool: "true or false", type(None): "None"}


class _Unique(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.MarkedYAMLError(problem=f"key {twice[0]!r} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> dict:
    """The mapping that a YAML text holds, empty for an empty one, no key twice; an `InputError`, which calls it
    `where`, says with line and column if it is not YAML, or if it holds something else."""
    return copy.deepcopy(_parsed(text, where))


@functools.lru_cache(maxsize=32)  # a run of twelve models asks for their file some 250 times, at 0.1 s each
def _parsed(text: str, where: str) -> dict:
    try:
        found = yaml.load(text, _Unique)
    except yaml.MarkedYAMLError as error:
        problem = " ".join((error.problem or str(error)).split())
        # of what is not closed, the place where it begins
        mark = error.context_mark if "end of stream" in problem else error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}," if mark else ""
        way_out = "one line above for a colon, a quotation mark, a bracket or an indent that is missing"
        raise InputError(f"{where}{place} is not YAML ({problem}): look there and {way_out}") from None
    except Exception:  # of a value that is not of the type its tag says, a number too long, nesting too deep
        raise InputError(f"{where} is not YAML: it holds a value that cannot be read, take it out") from None
    if not isinstance(found or {}, dict):
        raise InputError(f"{where} holds {str(found)[:40]!r}; accepted: lines of the form key: value")
    return found or {}


def options(kind: type) -> Iterable[tuple[str, dict]]:
    """Option and keywords of `argparse` for each field of a request; the help is the comment behind the field."""
    hints, texts = typing.get_type_hints(kind), {}
    for one in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        found = re.findall(r"^    (\w+): .*?  # (.+(?:\n    # .+)*)", inspect.getsource(one), re.MULTILINE)
        texts |= {name: text.replace("\n    # ", " ") for name, text in found}
    for name, default in ((field.name, field.default) for field in dataclasses.fields(kind)):
        note = "needed" if default is dataclasses.MISSING else f"default: {default!r}"
        takes = {"metavar": name.upper(), "help": f"{texts.get(name, '')} ({note})".strip().replace("%", "%%")}
        kinds = _kinds(hints[name])
        takes |= {"nargs": "?", "const": "true"} if bool in kinds else {}
        takes |= {"nargs": "+"} if any(map(_is_list, kinds)) else {}
        yield f"--{name.replace('_', '-')}", takes


def of_words(kind: type, given: Mapping[str, str | list[str]]) -> dict:
    """Values for `build` from words of a command line; numbers, true, false and lists are read as YAML."""
    return {name: _of_word(word, typing.get_type_hints(kind).get(name, str)) for name, word in given.items()}


def _of_word(word, hint):
    if isinstance(word, list) and not word[0].startswith("["):
        (items,) = (typing.get_args(one)[0] for one in _kinds(hint) if _is_list(one))
        # 0,2,4 is as 0 2 4; in a name a comma may stand
        return [_of_word(item, items) for item in (word if items is str else ",".join(word).split(","))]
    word = word[0] if isinstance(word, list) else word
    if str not in _kinds(hint):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.safe_load(word)
    return word


def collect(kind: type[Kind], namespace: dict) -> Kind:
    """Build a request, whose fields are a notebook's parameters, from the ``globals()`` behind their cells;
    `InputError` if a name is no parameter, one is missing, or a value has not the type of its field."""
    given = {name: namespace[name] for name in namespace if not (name.startswith("_") or name in _IPYTHON)}
    code = types.ModuleType | types.FunctionType | type
    return build(kind, {name: one for name, one in given.items() if not isinstance(one, code)}, noun="parameter")


def build(kind: type[Kind], given: dict, *, noun: str) -> Kind:
    """Build a dataclass from named values.

    Names that its fields had before stand in its attribute `old_names`, if it has one. Lists, `true`, `false`
    and `none` may come as strings, since ``papermill -p`` hands them over so. An `InputError`, which calls a
    field `noun`, says if a name is no field, a field without default is missing, or a value is ill-typed."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints, given = typing.get_type_hints(kind), _renamed(kind, given, fields, noun)
    refuse_unknown(given, fields, noun=noun)
    values = {name: _read(value, hints[name]) for name, value in given.items()}
    for name, value in values.items():
        if not _fits(value, hints[name]):
            hint = ""
            if hints[name] is str and isinstance(value, int | float):  # made of what looks like one, 1 of 001
                quoted = "YAML makes a number of it: put it in quotation marks"
                raw = f"papermill's -p makes a number of it: write -r {name} …, which keeps a string"
                hint = f" ({raw if noun == 'parameter' else quoted})"
            typed = "" if value is None or isinstance(value, list) else f", of type {type(value).__name__}"
            raise InputError(f"{noun} {name!r} is {value!r}{typed}; accepted: {_spell(hints[name], value)}{hint}")
    needed = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
    if lacking := [name for name in needed if name not in values]:
        raise InputError(f"{noun} {lacking[0]!r} is missing; needed are {', '.join(needed)}")
    return kind(**values)


def refuse_unknown(given: dict, accepted: Iterable[str], *, noun: str) -> None:
    """Refuse by an `InputError` the first of the given names that is none of the accepted ones."""
    accepted = list(accepted)
    for name, value in given.items():
        if name not in accepted:
            raise InputError(f"{one_of(noun, name, accepted)} (its value was {value!r})")


def _renamed(kind: type, given: dict, fields: dict[str, dataclasses.Field], noun: str) -> dict:
    """The values under the names of today; a notebook's default under today's name gives way to an old name."""
    for old, new in getattr(kind, "old_names", {}).items():
        if old in given:
            value, default = given[old], fields[new].default
            if given.get(new, default) != default:
                raise InputError(f"{noun} {old!r} is the old name of {new!r}, and both are given: drop {old!r}")
            print(f"{noun} {old!r} is an old name, and is taken for {new!r}: write {new} = {value!r}")
            given = {name: given[name] for name in given if name != old} | {new: value}
    return given


def _kinds(hint) -> tuple:
    """The types of a union; else the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _read(value, hint):
    """The value that a string from a command line stands for, where the field takes no string."""
    if not isinstance(value, str):
        return value
    kinds = _kinds(hint)
    words: dict[str, bool | None] = {"true": True, "false": False} if bool in kinds else {}
    if type(None) in kinds and str not in kinds:
        words |= {"none": None, "null": None}
    if value.startswith("[") and any(_is_list(kind) for kind in kinds):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.safe_load(value)
    return words.get(value.lower(), value)


def _is_list(hint) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(list, origin)


def _fits(value, hint) -> bool:
    if len(kinds := _kinds(hint)) > 1:
        return any(_fits(value, kind) for kind in kinds)
    if _is_list(hint):
        return isinstance(value, list | tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    return isinstance(value, typing.get_origin(hint) or hint) and not (hint is int and isinstance(value, bool))


def _spell(hint, value, *, many: bool = False) -> str:
    if len(kinds := _kinds(hint)) > 1:
        return " or ".join(_spell(kind, value, many=many) for kind in kinds)
    if _is_list(hint):
        item = typing.get_args(hint)[0]
        example = [value] if _fits(value, item) and len(str(value)) < 99 else [0, 1] if _fits(0, item) else ["a"]
        return f"a list of {_spell(item, value, many=True)}, such as '{json.dumps(example)}'"
    one = _SPELLED.get(typing.get_origin(hint) or hint, str(hint))
    return f"{one[2:]}s" if many and one.startswith("a ") else one
