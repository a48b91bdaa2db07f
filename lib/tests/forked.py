"""Python for tests, forked from a process that has imported what each start of it would import anew.

Starting Python, torch, transformers and Altair takes five seconds of a core, and the tests start some eighty
kernels and commands. Nothing of the project is imported before the fork. The book that CI renders, a test of
papermill's command, and whatever depends on how a process starts, start Python as a user does.

As a program this is such a Python, until it ends: its options are a module (`-m`), code (`-c`) or a script, with
arguments. The first one starts the process that all are forked from.
"""

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

ADDRESS, OWNER = "FORKED_ADDRESS", "FORKED_OWNER"
"""Variables: the socket of the process that forks, and the process with which it ends."""

FORKS = sys.platform == "linux"  # macOS forks no process that has used its libraries
PYTHON = [sys.executable, __file__] if FORKS else [sys.executable]
"""What to write in place of `sys.executable`."""

IMPORTED = (
    "torch", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto", "accelerate", "xarray", "netCDF4", "scipy.stats", "pandas",
    "altair", "vl_convert", "joblib.externals.loky", "IPython.display", "ipykernel.kernelapp",
    "ipykernel.ipkernel",
)  # fmt: skip


def install(folder: Path) -> dict[str, str]:
    """Write the description of such a kernel, and return the variables with which Jupyter finds it."""
    if not FORKS:
        return {}
    path = folder / "kernels" / "python3" / "kernel.json"
    path.parent.mkdir(parents=True)
    command = [*PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    path.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return {"JUPYTER_PATH": str(folder), ADDRESS: str(folder / "socket"), OWNER: str(os.getpid())}


def run(arguments: list[str]) -> int:
    """Have a process forked, hand signals on to it, and return its exit status."""
    given = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with _connect() as connection:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
        message = json.dumps(given).encode()
        socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(message)
        return int.from_bytes(connection.recv(1) or b"\1", "big")


def _connect() -> socket.socket:
    address, connection = os.environ[ADDRESS], socket.socket(socket.AF_UNIX)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(address):
            command = [*PYTHON, "--fork"]
            # who reads the streams of the first one would wait for its end
            none = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            first = subprocess.Popen(command, start_new_session=True, cwd="/", **none)
            while not os.path.exists(address) and first.poll() is None:
                time.sleep(0.05)
    connection.connect(address)
    return connection


def fork_all() -> None:
    """Import what most import, and fork a process for every connection until the tests have ended."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
    made = f"{os.environ[ADDRESS]}.made"
    server = socket.socket(socket.AF_UNIX)
    server.bind(made)
    server.listen(16)
    os.rename(made, os.environ[ADDRESS])  # there once it listens
    while os.path.exists(f"/proc/{os.environ[OWNER]}"):
        if select.select([server], [], [], 1)[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _watch(connection)
            connection.close()


def _watch(connection: socket.socket) -> None:
    """Fork a process; end it when nobody is there who wants it, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, *_ = socket.recv_fds(connection, 8, 3)
    message = b""
    while len(message) < int.from_bytes(length, "big"):
        message += connection.recv(1 << 16)
    if (process := os.fork()) == 0:
        connection.close()
        _become(json.loads(message), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if select.select([connection], [], [], 0.02)[0]:
            os.kill(process, int.from_bytes(connection.recv(1) or bytes([signal.SIGKILL]), "big"))
    try:
        connection.send(bytes([os.waitstatus_to_exitcode(ended[1]) % 256]))
    finally:
        os._exit(0)


def _become(given: dict, descriptors: list[int]) -> None:
    """Be the process that was asked for: its folder, its environment, its streams, its program."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    os.environ.pop("JPY_PARENT_PID", None)  # another process is its parent, and ends it
    path = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    kind, *arguments = given["arguments"]
    status = 0
    try:
        if kind in ("-m", "-c"):
            name, *arguments = arguments
            sys.path[:], sys.argv = [os.getcwd(), *path], [kind, *arguments]
            if kind == "-m":
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            else:
                exec(compile(name, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path[:], sys.argv = [os.path.dirname(os.path.abspath(kind)), *path], [kind, *arguments]
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    fork_all() if sys.argv[1:] == ["--fork"] else sys.exit(run(sys.argv[1:]))
