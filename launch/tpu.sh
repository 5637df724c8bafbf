#!/usr/bin/env bash
# charlstm on a TPU slice: this script runs on all hosts of the slice at once.
#
#   gcloud compute tpus tpu-vm scp --recurse --worker=all . NAME:charlstm
#   gcloud compute tpus tpu-vm ssh NAME --worker=all \
#     --command='charlstm/launch/tpu.sh --config=NAME --workdir=/shared/runs/NAME'
#
# The first call installs charlstm next to its sources, or into the active environment (Python 3.11
# or newer). The run folder must be on a disk that all hosts share.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

environment=${VIRTUAL_ENV:-$here/.venv}
if [ ! -x "$environment/bin/charlstm" ]; then
  python3 -m venv "$environment" && "$environment/bin/pip" install -q "$here[tpu]" || exit
fi

# 75: saved, run me again. All hosts save together, so they also start again together.
code=75
while [ "$code" = 75 ]; do
  "$environment/bin/charlstm" train "$@"
  code=$?
done
exit "$code"
