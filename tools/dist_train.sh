#!/usr/bin/env bash
# Train with N processes, one per GPU (or on the CPU): tools/dist_train.sh CFG N [OPTIONS]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CFG N [OPTIONS]" >&2
    exit 2
fi
exec python -m torch.distributed.run --standalone --local-addr=localhost --nproc_per_node="$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
