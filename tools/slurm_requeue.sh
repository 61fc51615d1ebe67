#!/usr/bin/env bash
# Train in a SLURM job that saves before its time limit and puts itself back into the queue:
#   sbatch [SBATCH OPTIONS] tools/slurm_requeue.sh CFG [OPTIONS]
# Run it in the project's folder, with the Python environment activated. Options of sbatch override those below.
#SBATCH --job-name=hrpose
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
if [ $# -lt 1 ] || [ ! -f tools/train.py ]; then
    echo "usage, in the project's folder: sbatch tools/slurm_requeue.sh CFG [OPTIONS]" >&2
    exit 2
fi
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not inherit this from sbatch
code=0
# --wait: when one process ends, the others have 120 seconds to end, too.
srun --wait=120 python -u tools/train.py "$@" --launcher slurm AUTO_RESUME True || code=$?
# 138 is 128 + SIGUSR1: the checkpoint is saved, but the training is not finished.
if [ "$code" -eq 138 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
