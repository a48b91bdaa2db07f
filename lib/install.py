"""Make the environment `.venv` of the report, or do nothing where it is whole. The Makefile calls this.

Runs on any Python 3 and with nothing installed, so that it can refuse a wrong Python in one line. uv installs
where it is there or can be had from the package index, else pip.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request

OLDEST, NEWEST = (3, 11), (3, 14)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
READY = os.path.join(VENV, "ready")
"""Written last: an environment without it is not whole."""
CONSTRAINTS = os.path.join(ROOT, "lib", "constraints.txt")
EXTRAS = ["report", "test"]

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""PyTorch's index of builds without CUDA."""

GB = {"cpu": 3, "cuda": 9}
"""Space that an installation takes, for either build of torch."""


class Refused(Exception):
    """One line for the user, with the way out."""


def main():
    """Make what is asked for; what goes wrong is one line and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--active", metavar="PREFIX", help="only check the environment that is active")
    parser.add_argument("--quarto", action="store_true", help="only try once to have Quarto in .venv")
    parser.add_argument("--dadapy", metavar="FOLDER", help="only make the environment of DADApy in this folder")
    parser.add_argument("--dev", action="store_true", help="with what make check runs")
    parser.add_argument("--any-python", action="store_true", help="keep a whole .venv, of whatever Python it is")
    options = parser.parse_args()
    # a kernel of Jupyter forces colors, whose codes would stand in the reasons that are quoted
    for name in ("CLICOLOR_FORCE", "FORCE_COLOR"):
        os.environ.pop(name, None)
    os.environ["NO_COLOR"] = "1"
    try:
        if options.quarto:
            install_quarto(options.active)
        elif options.active:
            check_active(options.active, options.dev)
        elif options.dadapy:
            make_dadapy(options.dadapy)
        else:
            make_venv(options.any_python, options.dev)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        way = way_out(str(error)) or "check the folder's permissions"
        print(f"error: {VENV} cannot be made ({error}): {way}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the next make starts the environment anew", file=sys.stderr)
        return 130
    return 0


def check_active(prefix, dev):
    """Refuse an active environment that lacks something: nothing is installed into it without being asked."""
    needed = ("token_geometry", "papermill", "altair", "pytest", "xdist")
    needed += ("ruff", "mypy", "importlinter") if dev else ()
    find = f"import importlib.util as u; print(*(n for n in {needed!r} if u.find_spec(n) is None))"
    done = run([os.path.join(prefix, "bin", "python"), "-c", find])
    missing = done.stdout.split() if done and done.returncode == 0 else ["a working Python"]
    if missing:
        raise Refused(
            "the active environment {} lacks {}: deactivate it, and make uses one of its own; or "
            "pip install -c lib/constraints.txt -e 'lib{}'".format(prefix, ", ".join(missing), extras(dev))
        )


def extras(dev):
    """The extras as a requirement names them."""
    return "[{}]".format(",".join(EXTRAS + ["dev"] * dev))


def make_venv(any_python, dev):
    """Make `.venv` unless it is whole, of this Python, and of today's requirements."""
    version = "{}.{}".format(*sys.version_info[:2])
    wanted = wanted_digest()
    found = read_ready()
    same_python = bool(found) and (any_python or found[0] == version)
    had_dev = same_python and found[2:] == ["dev"]
    if same_python and found[1] == wanted and (had_dev or not dev):
        return
    if not same_python:
        check_python(version)
        # what is left of an interrupted installation, or of another Python, helps nobody
        if os.path.lexists(VENV):
            print(f"{VENV} is not whole or of another Python: it is made anew", flush=True)
            remove(VENV)
        check_space("cpu")
        create()
    else:
        os.remove(READY)
    uv = find_uv()
    install(uv, uv_settings(PYTHON) if uv else {}, dev or had_dev)
    with open(READY + ".partial", "w") as file:
        words = [found[0] if same_python else version, wanted] + ["dev"] * (dev or had_dev)
        file.write(" ".join(words) + "\n")
    os.replace(READY + ".partial", READY)
    print(f"{VENV} is ready", flush=True)


def install_quarto(active):
    """Try once to install Quarto into `.venv`; nothing is installed into an environment of the user's.

    Its package downloads Quarto itself while it is installed, which an air-gapped machine cannot: then books are
    rendered with pandoc.
    """
    tried = os.path.join(VENV, "quarto-tried")
    there = shutil.which("quarto") or shutil.which("quarto", path=os.path.join(active or VENV, "bin"))
    if there or (not active and os.path.exists(tried)):
        return
    with open(os.path.join(ROOT, "environment.yml")) as file:
        package = re.search(r"quarto-cli==[\w.]+", file.read()).group()
    if active:
        print(f"No Quarto here; rendering with pandoc (for Quarto: pip install {package}).", flush=True)
        return
    print(f"Installing {package} (once) …", flush=True)
    done = run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", package])
    if not done or done.returncode:
        print(
            f"Quarto cannot be downloaded here; rendering with pandoc (delete {tried} to try again).", flush=True
        )
        with open(tried, "w"):
            pass


def make_dadapy(folder):
    """Make the environment that `dadapy_gride.py` declares, whole or not at all; uv finds a Python for it."""
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if not uv:
        raise Refused("uv, which makes its environment, is not there: pip install uv")
    environment = dict(os.environ, **uv_settings(sys.executable))
    environment.pop("VIRTUAL_ENV", None)
    partial = folder + ".partial"
    if os.path.lexists(partial):
        remove(partial)
    script = os.path.join(ROOT, "lib", "dadapy_gride.py")
    with open(script) as file:
        python = re.search('requires-python = "(.*)"', file.read()).group(1)
    otherwise = "it takes Python 3.11 or 3.12, a C compiler and the package index"
    no_python = "install Python 3.11 or 3.12, or connect to a network that uv can download one from"
    install = uv_install(uv, os.path.join(partial, "bin", "python"), environment)
    install.remove("--compile-bytecode")  # one process uses it, and a tenth of its modules
    try:
        stream([uv, "venv", "--no-project", "--python", python, partial], environment, no_python, always=True)
        stream([*install, "--requirements", script], environment, otherwise)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def wanted_digest():
    """Hash of what decides the content of the environment."""
    digest = hashlib.sha256(ROOT.encode())
    for path in (CONSTRAINTS, os.path.join(ROOT, "lib", "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def read_ready():
    """Python version, digest and perhaps "dev" of a whole `.venv` whose Python still runs, or None."""
    try:
        with open(READY) as file:
            version, digest, *dev = file.read().split()
    except (OSError, ValueError):
        return None
    done = run([PYTHON, "-c", "import sys; print('{}.{}'.format(*sys.version_info[:2]))"])
    return [version, digest] + dev if done and done.stdout.strip() == version else None


def check_python(version):
    """Refuse a Python that the requirements have no wheels for, with the way to one."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    there = [name for name in names if works(name)]
    way = f"make book PYTHON={there[0]}" if there else (
        "install one (Debian, Ubuntu: apt-get install python3.12 python3.12-venv; Homebrew: brew install "
        "python@3.12; elsewhere: pip install uv && uv python install 3.12) and give it as make book PYTHON=…"
    )  # fmt: skip
    raise Refused(
        "Python {} ({}) cannot run this; it takes one from {}.{} to {}.{}: {}".format(
            version, sys.executable, *(OLDEST + NEWEST + (way,))
        )
    )


def works(name):
    """Whether a Python on the PATH runs; a version manager may have a mere placeholder for it."""
    done = run([name, "-c", "print(1)"]) if shutil.which(name) else None
    return bool(done) and done.returncode == 0


def check_space(build):
    """Refuse before anything is downloaded where the disk is too full."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GB[build]:
        raise Refused(
            f"{VENV} needs about {GB[build]} GB and its disk has {free:.1f} GB free: make space, or clone to "
            "another disk"
        )


def create():
    """Make an empty environment with pip, which the library also uses to fetch models from the index."""
    done = run([sys.executable, "-m", "venv", VENV])
    reason = reason_of(done.stdout + done.stderr) if done else "it does not start"
    if (not done or done.returncode) and shutil.which("uv"):
        done = run(["uv", "venv", "--clear", "--seed", "--python", sys.executable, VENV])
    if not done or done.returncode:
        raise Refused(
            f"{sys.executable} cannot make environments ({reason}): install its module venv with pip in it "
            "(Debian, Ubuntu: apt-get install python3-venv), or uv"
        )


def find_uv():
    """Path of uv: where it is there, or out of the index into `.venv`; None where it cannot be had."""
    there = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(PYTHON))
    if there:
        return there
    with open(CONSTRAINTS) as file:
        pin = re.search(r"^uv==\S+", file.read(), re.MULTILINE).group()
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = run([*command, "--only-binary", ":all:", "--retries", "1", "--timeout", "30", pin])
    if done is None or done.returncode:
        print(f"{pin} cannot be had here; pip installs instead, which takes longer", flush=True)
        return None
    return shutil.which("uv", path=os.path.dirname(PYTHON))


def uv_settings(python):
    """What pip is told about indexes on this machine, as environment variables for uv, which reads no pip.conf.

    A variable that the user has set for uv is left alone.
    """
    done = run([python, "-m", "pip", "config", "list"])
    options = {}
    for line in done.stdout.splitlines() if done else ():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "install", ":env:"):
            try:
                options[name] = str(ast.literal_eval(value)).split()
            except (ValueError, SyntaxError):
                continue
    found = {}
    for name, variable, separator in (
        ("index-url", "UV_DEFAULT_INDEX", " "),
        ("extra-index-url", "UV_INDEX", " "),
        ("find-links", "UV_FIND_LINKS", ","),
        ("constraint", "UV_CONSTRAINT", " "),
        ("trusted-host", "UV_INSECURE_HOST", " "),
        ("no-index", "UV_NO_INDEX", " "),
        ("cert", "SSL_CERT_FILE", " "),
        ("proxy", "ALL_PROXY", " "),
    ):
        if options.get(name) and variable not in os.environ:
            found[variable] = separator.join(options[name])
    # pip takes the best version of all its indexes
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in os.environ:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


def uv_install(uv, python, environment):
    """The command to which requirements are added; uv has no variable for pip's no-index."""
    index = ["--no-index"] if environment.get("UV_NO_INDEX") else []
    # as pip does; else each of the many processes of a run compiles what it imports where Python may not keep it
    return [uv, "pip", "install", "--no-progress", "--compile-bytecode", *index, "--python", python]


def install(uv, settings, dev):
    """Install the package with what the report needs, and show what is downloaded."""
    environment = dict(os.environ, **settings)
    environment.pop("VIRTUAL_ENV", None)
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = uv_install(uv, PYTHON, environment) if uv else pip
    command += ["--constraint", CONSTRAINTS, *cpu_options(uv, environment)]
    requirement = ["--editable", os.path.join(ROOT, "lib") + extras(dev)]
    with open(CONSTRAINTS) as file:
        torch = re.search(r"^torch==[^\s;]+", file.read(), re.MULTILINE).group()
    # torch alone shows which build it is
    planned = run([*command, "--dry-run", "--no-deps", torch], environment)
    output = planned.stdout + planned.stderr if planned else ""
    build = re.search(r"[+~] torch==(\S+)|Would install .*\btorch-(\S+)", output)
    cuda = sys.platform == "linux" and build and "+cpu" not in build.group()
    if cuda:
        print("torch comes with CUDA here: about 3 GB to download, 8 GB on the disk", flush=True)
        check_space("cuda")
    else:
        print(
            "Installing what the report needs with {} (1.8 GB on the disk)".format("uv" if uv else "pip"),
            flush=True,
        )
    stream(command + requirement, environment, f"run make again; {VENV} is made anew then")


def cpu_options(uv, environment):
    """Options that bring torch without CUDA where there is no NVIDIA GPU and PyTorch's index answers."""
    if sys.platform != "linux" or has_gpu() or "UV_NO_INDEX" in environment or "PIP_NO_INDEX" in environment:
        return []
    try:
        urllib.request.urlopen(CPU_BUILDS + "/torch/", timeout=5).close()
    except (OSError, ValueError):  # there may be another source: what pip takes by its own settings
        return []
    return ["--torch-backend", "cpu"] if uv else ["--extra-index-url", CPU_BUILDS]


def has_gpu():
    """Whether the driver of NVIDIA knows a GPU."""
    done = run(["nvidia-smi", "--list-gpus"]) if shutil.which("nvidia-smi") else None
    return bool(done) and done.returncode == 0 and "GPU" in done.stdout


def stream(command, environment, otherwise, always=False):
    """Run an installer and show its lines about what is downloaded or built.

    What went wrong is refused with its way out: `otherwise`, where its words do not say one, or always.
    """
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, cwd=ROOT,
    )  # fmt: skip
    tail = []
    try:
        for line in process.stdout:
            tail = [*tail[-30:], line]
            if re.match(
                r"\s*(Downloading|Building|Prepared|Installed|Processing|Installing|warning|WARNING)", line
            ):
                print("  " + line.strip()[:110], flush=True)
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        text = "".join(tail)
        way = otherwise if always else way_out(text) or otherwise
        raise Refused(f"the installation stopped ({reason_of(text)}): {way}")


def way_out(text):
    """What to do about an installer's words; empty where they do not say it."""
    if "No space left" in text or "Disk quota" in text:
        return "the disk is full: make space, and run make again"
    if re.search(r"(?i)connect|network|dns|resolve host|timed out|fetch", text):
        return "connect to a network, or set pip's index-url to a mirror, and run make again"
    return ""


def reason_of(text):
    """What an installer says went wrong, in one line: from its first word of an error on."""
    lines = [line.strip(" ×╰─▶├│\t") for line in text.splitlines() if line.strip(" ×╰─▶├│\t")]
    first = [place for place, line in enumerate(lines) if re.match(r"(?i)(error|fatal)\b", line)]
    return " ".join(lines[first[0] if first else -3 :])[:300]


def remove(path):
    """Delete a folder, or a link or file in its place."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def run(command, environment=None):
    """Output of a command, or None where it cannot be started."""
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
