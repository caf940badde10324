#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Flow of a folder of videos by an array of Slurm's jobs, each of which does its part of the videos, all into one store:
#
#   sbatch slurm_array.sh VIDEOS FLOW [more options of `twostream extract`]
#
# Another number of parts: PARTS=20 sbatch --array=1-20 slurm_array.sh ... What was broken off goes on with the same
# command; for parts 7 and 9 alone: sbatch --array=7,9 slurm_array.sh ...
#SBATCH --job-name=flow
#SBATCH --array=1-100
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail

if (($# < 2)); then
  echo "usage: sbatch $(basename "$0") VIDEOS FLOW [options of twostream extract]" >&2
  exit 2
fi
parts=${PARTS:-100} # not Slurm's own count, which is smaller when some parts are done again

# Slurm's signal at the end of the time goes to the command itself, which leaves whole files alone.
exec twostream extract "$1" "$2" --shard "$SLURM_ARRAY_TASK_ID/$parts" --workers "${SLURM_CPUS_PER_TASK:-1}" "${@:3}"
