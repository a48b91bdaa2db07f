#!/usr/bin/env bash
# All checks that need a GPU, in one command: lib/benchmarks/gpu.sh [options of gpu_checks.py]
#
# It needs this checkout and a Python with pip. Where PYTHON (python3 if not given) has what the package requires,
# it is used as it is; else .venv-gpu is made on top of it, which keeps a torch that is there. Where there is no
# network, pip takes wheels from a folder: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER. Without a GPU the checks run on the
# CPU at reduced shapes and say so. The result goes to data/benchmarks/gpu.json (gpu-reduced.json without a GPU).
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD/lib${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
needs='import accelerate, filelock, joblib, netCDF4, psutil, scipy, torch, tqdm, transformers, xarray, yaml'

if ! "$python" -c "$needs" 2>/dev/null; then
    if ! .venv-gpu/bin/python -c "$needs" 2>/dev/null; then
        echo "$python lacks what the package requires: making .venv-gpu (torch for GPUs takes several GB, if it is not there)"
        rm -rf .venv-gpu
        "$python" -m venv --system-site-packages .venv-gpu
        .venv-gpu/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off --editable lib
    fi
    python=.venv-gpu/bin/python
fi

# eight minutes, of which the last thirty seconds are for an end that says why
exec timeout --kill-after 30 450 "$python" lib/benchmarks/gpu_checks.py "$@"
