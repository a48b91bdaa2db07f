"""Files from outside, behind a door that makes each error of reading one line."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from token_geometry.base import InputError, parameters

KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


@contextlib.contextmanager
def door(what: str, way_out: str = "") -> Iterator[None]:
    """Turn every error of reading `what` into one line, at the end of which stands the way out."""
    try:
        yield
    except InputError as error:
        if way_out:
            raise InputError(f"{error}{way_out}") from None
        raise
    except UnicodeDecodeError as error:
        utf16 = " (it begins as UTF-16 does)" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        hint = way_out or ": convert it to UTF-8"
        raise InputError(f"{what} is not UTF-8 (byte {error.start}){utf16}{hint}") from None
    except KeyError as error:
        raise InputError(f"{what} lacks {error}{way_out}") from None
    except RecursionError:
        raise InputError(f"{what} is nested too deeply{way_out or ': leave out all but id and text'}") from None
    except Exception as error:  # readers raise many kinds, all of which mean: not to be read
        reason = getattr(error, "strerror", None) or next(iter(str(error).strip().splitlines()), "")
        raise InputError(f"{what} cannot be read: {reason or type(error).__name__}{way_out}") from None


def check_file(path: Path, what: str) -> None:
    """Refuse what is no regular file: reading a pipe waits forever, and a device has no end."""
    with door(what):
        if path.is_symlink() and not path.exists():
            raise InputError(f"{what} is a link that leads to no file: take it away")
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise InputError(f"{what} is {KINDS.get(stat.S_IFMT(mode), 'a device')} and no file: give a file")


def decode(path: Path, what: str) -> str:
    """Text of a file in UTF-8, its line ends as they are; errors call it `what`."""
    check_file(path, what)
    with door(what):
        content = path.read_bytes()
        if 4 * content[:1000].count(0) > len(content[:1000]) > 0:
            raise InputError(f"{what} is not UTF-8 (it holds NULs as UTF-16 does): convert it to UTF-8")
        return content.decode("utf-8-sig")


def partial(path: Path) -> Path:
    """Name of a file until it is whole; what a killed process left under it `processes.remove_left` finds."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def write(text: str, path: Path) -> None:
    """Write a text so that the file is either whole or as before."""
    unfinished = partial(path)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def read_yaml(path: Path, what: str) -> dict:
    """The mapping of a YAML file in UTF-8 without a key twice; `InputError` if it is none."""
    return parameters.read_yaml(decode(path, what), what)


def table(module: str) -> dict:
    """What the YAML file of a module's name holds, which lies beside the module; `module` is its `__file__`."""
    path = Path(module).with_suffix(".yml")
    return read_yaml(path, path.name)
