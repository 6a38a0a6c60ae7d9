#!/usr/bin/env bash
# The commands of docs/ten_minutes.md on horse2zebra, timed: benchmarks/ten_minutes.sh SHARED/data/horse2zebra FOLDER
#
# FOLDER gets pictures/ (copies of trainA and trainB), data/, runs/ and translated/. One thread; each step ends with its
# seconds on the clock and of the processor.
set -euo pipefail
data=$(realpath "$1") && mkdir -p "$2/pictures" && cd "$2"
export OMP_NUM_THREADS=1 TIMEFORMAT='%R s on the clock, %U s of the processor'
cp -r "$data/trainA" pictures/horse && cp -r "$data/trainB" pictures/zebra
time unpaired data prepare pictures --out data/mine
time unpaired train data/mine --recipe quick --images 2000 --threads 1 --out runs/mine
time unpaired translate runs/mine data/mine/testA --out translated --size 128
