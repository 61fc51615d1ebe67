#!/usr/bin/env bash
echo "error: SLURM is not supported yet; run tools/dist_train.sh CFG N on one machine" >&2
exit 1
