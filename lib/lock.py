"""Write `constraints.txt`, the exact versions of all that the report installs, with the wheels that each has.

uv resolves the requirements of `pyproject.toml` for every Python and platform at once. Versions that the file
holds already are kept; `--upgrade` takes the newest of the index, `--upgrade-package NAME` that of one package.
"""

import argparse
import functools
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging import tags
from packaging.markers import Marker, default_environment
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
TARGET = HERE / "constraints.txt"
HEAD = """\
# Exact versions of all that the report installs: python lib/lock.py makes this file from pyproject.toml.
# Below each version are its wheels for the Pythons and platforms that are supported, as their file names spell
# them. A version that only some of these take has the condition in its line.
"""

GLIBC = 36
"""Of Debian 12 (2.36), the oldest Linux that is supported."""

MACOS = (15, 0)
"""The oldest macOS that Apple mended when the versions were last chosen."""


@functools.cache
def targets() -> dict[tuple[str, str], tuple[list[tags.Tag], dict[str, str]]]:
    """Tags, best first, and environment of markers for every Python and platform that is supported."""
    found = {}
    for minor in range(11, 15):
        for machine, system in (("x86_64", "linux"), ("aarch64", "linux"), ("arm64", "darwin")):
            if system == "linux":
                platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(GLIBC, 4, -1)]
                platforms += [
                    f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
                ]
            else:
                platforms = list(tags.mac_platforms(MACOS, machine))
            version = (3, minor)
            accepted = [
                *tags.cpython_tags(version, platforms=platforms),
                *tags.compatible_tags(version, interpreter=f"cp3{minor}", platforms=platforms),
            ]
            environment = default_environment() | {
                "python_version": f"3.{minor}",
                "python_full_version": f"3.{minor}.2",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
                "os_name": "posix",
                "sys_platform": system,
                "platform_system": system.capitalize(),
                "platform_machine": machine,
            }
            found[f"3.{minor}", f"{system} {machine}"] = accepted, environment
    return found


def best_wheel(names: list[str], accepted: list[tags.Tag]) -> str | None:
    """File name of the wheel that an installer takes, or None where it has to compile."""
    place = {tag: number for number, tag in enumerate(accepted)}
    ranked = [(min(place.get(tag, len(place)) for tag in parse_wheel_filename(name)[3]), name) for name in names]
    rank, name = min(ranked, default=(len(place), None))
    return name if rank < len(place) else None


def simplify(marker: Marker) -> Marker:
    """The shortest condition that says the same on all that is supported; uv spells out what holds everywhere."""
    short = [f'sys_platform == "{system}"' for system in ("linux", "darwin")]
    for minor in range(11, 15):
        short += [f'python_version {comparison} "3.{minor}"' for comparison in ("==", "<", ">=")]
    environments = [environment for _, environment in targets().values()]
    wanted = [marker.evaluate(environment) for environment in environments]
    found = (Marker(text) for text in short)
    same = (each for each in found if [each.evaluate(environment) for environment in environments] == wanted)
    return next(same, marker)


def condense(lock: dict) -> str:
    """The lines of `constraints.txt` from what uv resolved, as `pylock.toml` holds it."""
    lines = []
    for package in sorted(lock["packages"], key=lambda package: (package["name"], package["version"])):
        marker = Marker(package["marker"]) if "marker" in package else None
        taken = {key: each for key, each in targets().items() if not marker or marker.evaluate(each[1])}
        if not taken:
            continue
        condition = f" ; {simplify(marker)}" if len(taken) < len(targets()) else ""
        lines.append(f"{package['name']}=={package['version']}{condition}")
        names = [wheel["url"].rsplit("/", 1)[1].replace("%2B", "+") for wheel in package.get("wheels", ())]
        wheels = {best_wheel(names, accepted) for accepted, _ in taken.values()} - {None}
        lines += sorted("    # " + "-".join(name.removesuffix(".whl").split("-")[2:]) for name in wheels)
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Resolve and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "pylock.toml"
        command = ["uv", "pip", "compile", str(HERE / "pyproject.toml"), "--all-extras", "--universal", "--quiet"]
        command += ["--python-version", "3.11", "--format", "pylock.toml", "--output-file", str(lock)]
        if not options.upgrade:
            kept = Path(folder) / "kept.txt"
            open_ = {re.sub(r"[-_.]+", "-", name).lower() for name in options.upgrade_package}
            pins = TARGET.read_text(encoding="utf-8").splitlines()
            kept.write_text("\n".join(pin for pin in pins if pin.split("==")[0] not in open_), encoding="utf-8")
            command += ["--constraints", str(kept)]
        status = subprocess.run(command).returncode
        if status == 0:
            text = condense(tomllib.loads(lock.read_text(encoding="utf-8")))
            TARGET.write_text(text, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
