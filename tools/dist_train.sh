#!/usr/bin/env bash
# Train with N processes, one per GPU (or on the CPU): tools/dist_train.sh CFG N [OPTIONS]
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $2 =~ ^[0-9]+$ ]]; then
    echo "usage: $0 CFG N [OPTIONS]" >&2
    exit 2
fi
# Signals that torchrun passes on to its processes. By default, SIGUSR1 is not one of them and would
# end torchrun alone. Older versions ignore this variable.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
exec python -m torch.distributed.run --standalone --local-addr=localhost --nproc_per_node="$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
