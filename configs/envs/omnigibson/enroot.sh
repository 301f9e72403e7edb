#!/bin/bash
# The same container for enroot, with or without pyxis. Not yet tried with Isaac Sim.
#
#   bash configs/envs/omnigibson/enroot.sh /shared/omnigibson.sqsh       # once, on a machine with network
#
# In a config, with enroot alone:
#
#   slurm:
#     setup:
#       - export NVIDIA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES=all
#       - enroot create --force --name baton-$SLURM_JOB_ID /shared/omnigibson.sqsh
#     python: enroot start --rw --mount /shared:/shared --mount /tmp:/tmp baton-$SLURM_JOB_ID /shared/baton/.venv/bin/python
#
# With pyxis, `slurm.extra: {container-image: /shared/omnigibson.sqsh, container-mounts: /shared:/shared}` does it.
set -euo pipefail

target=${1:?say where the image goes, e.g. /shared/omnigibson.sqsh}
definition=$(cd "$(dirname "$0")" && pwd)/omnigibson.def
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

enroot import --output "$work/ubuntu.sqsh" docker://ubuntu:22.04
enroot create --force --name baton-omnigibson "$work/ubuntu.sqsh"
# The commands of the Apptainer definition: what stands between %post and the next section.
awk '/^%/ {on = ($1 == "%post"); next} on' "$definition" > "$work/post.sh"
enroot start --root --rw --mount "$work:/mnt" baton-omnigibson bash -e /mnt/post.sh
enroot export --force --output "$target" baton-omnigibson
enroot remove --force baton-omnigibson
