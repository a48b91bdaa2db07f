#!/bin/bash
# One extraction on several machines: a process a GPU, or PROCESSES_PER_NODE of them on machines without.
#
#   sbatch --nodes=4 lib/slurm/processes.sh --run paper
#   sbatch --nodes=2 lib/slurm/processes.sh -p model llama-3-8b -p corpus pile-10k -p n_prompts 2244 \
#       -p dtype bfloat16 -p output shards
#
# Submit it again after a time limit or a crash: it goes on where it stopped.
#SBATCH --job-name=token-geometry
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=180G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

gpus=${SLURM_GPUS_ON_NODE:-0}
per_node=${PROCESSES_PER_NODE:-$((gpus > 0 ? gpus : 1))}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# a process's threads are the prompts that it works on at a time, where there is no GPU
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((${SLURM_CPUS_PER_TASK:-1} + per_node - 1) / per_node))}

srun --kill-on-bad-exit=1 python -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$per_node" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${RENDEZVOUS_PORT:-29500}" \
    -m token_geometry.worker "$@"
