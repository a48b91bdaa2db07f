"""The one exception for input that cannot be used."""

import difflib


class InputError(ValueError):
    """Input that cannot be used; the message names the thing, the value and the way out, and has a bound."""

    def __init__(self, message: str):
        super().__init__(message if len(message) <= 2000 else f"{message[:1000]} … {message[-500:]}")

    def _render_traceback_(self) -> list[str]:
        # IPython shows this in place of a traceback: a reader needs the line, not the library's inside
        return [f"{type(self).__name__}: {self}"]


def one_of(kind: str, value: object, accepted) -> InputError:
    """An error for a `value` that is none of the `accepted` ones, with the nearest of them."""
    names = [str(name) for name in accepted]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}? Accepted" if near else "; accepted"
    return InputError(f"unknown {kind} {value!r}{hint}: {', '.join(names) or 'none by name here'}")
