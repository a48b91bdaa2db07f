#!/bin/bash
# One extraction by independent jobs, each with its part of the prompts, into one directory. The jobs need
# not run at the same time; those that fail are submitted again, alone (sbatch --array=3,5 would count
# parts anew: set N_PARTS to the number of the first submission).
#
#   sbatch --array=0-7 lib/slurm/slices.sh -p model llama-3-8b -p corpus pile-10k -p n_prompts 2244 \
#       -p dtype bfloat16 -p output shards
#SBATCH --job-name=token-geometry
#SBATCH --array=0-7
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=60G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
exec python -m token_geometry.worker \
    -p part "$SLURM_ARRAY_TASK_ID" -p n_parts "${N_PARTS:-${N_SHARDS:-$SLURM_ARRAY_TASK_COUNT}}" "$@"
