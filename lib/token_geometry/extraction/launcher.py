"""Launcher: several processes of this machine on one extraction, through torch.distributed's own launcher."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

import torch

from token_geometry.base import InputError
from token_geometry.requests.extraction import Extraction

MARK = "token_geometry: "
"""What a line of a worker begins with; the launcher's own lines are shown only if it fails."""


def run(request: Extraction) -> None:
    """Start `request.num_processes` workers and wait for them.

    Their lines go to standard output. They end when this process ends, however it ends: they watch their
    standard input, a pipe of which this process holds the other end. If one fails, an `InputError` has the line
    of the first that did.
    """
    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "parameters.json"
        parameters.write_text(json.dumps(request.parameters()), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(request.num_processes), "-m", "token_geometry.worker"]
        _follow([*command, "--parameters", str(parameters), "--ends-with-input"], request.num_processes)


def _follow(command: list[str], num_processes: int) -> None:
    # a process's threads are prompts that it works on at a time (see engine.make)
    n_threads = max(1, torch.get_num_threads() // num_processes)
    environment = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(n_threads)}
    if sys.platform == "linux":  # the name of this machine need not lead to an address
        environment["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    options: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options["start_new_session"] = True  # an interrupt comes to this process, which ends the others
    options |= {"env": os.environ | environment, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, **options)
    refusals: list[str] = []
    others: deque[str] = deque(maxlen=200)
    try:
        for line in process.stdout or ():
            if line.startswith(f"{MARK}error: "):
                refusals.append(line.removeprefix(f"{MARK}error: ").strip())
            elif line.startswith(MARK):
                print(line.removeprefix(MARK), end="", flush=True)
            else:
                others.append(line)
        status = process.wait()
    finally:
        if process.stdin:
            process.stdin.close()
        process.terminate()  # which does nothing where it has ended
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if refusals:
        raise InputError(refusals[0])
    if status:
        raise InputError(_reason("".join(others), num_processes))


def _reason(printed: str, num_processes: int) -> str:
    code = re.search(r"exitcode\s*:\s*(-?\d+)", printed)
    if code and code[1] == "-9":
        return (
            f"num_processes is {num_processes} and one of them was killed, most often for want of memory: run "
            "fewer processes, a smaller model, or another dtype; what is done is kept"
        )
    errors = re.findall(r"^(?:\[rank\d+\]: )?([\w.]+Error\b.*)", printed, flags=re.MULTILINE)
    last = errors[0].strip() if errors else f"exit status {code[1]}" if code else "it could not be started"
    return f"num_processes is {num_processes} and one of them failed ({last}); what is done is kept"
