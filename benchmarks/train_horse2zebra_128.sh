#!/usr/bin/env bash
# QS-Attn Global (dot) and CUT on horse2zebra, small enough for two CPU cores: the encoders of docs/significance.md.
# Usage: benchmarks/train_horse2zebra_128.sh DATA IMAGES OUT [SEED]   (OUT-qs_attn and OUT-cut are the run folders)
# Crops of 128 px have 32 x 32 locations at the last taps; N = 128 is one in eight. 34 x 34 patches are the paper's 70 x 70 of
# 256 px at this size. Checkpoints stay, so that the study can look at the encoder on its way.
set -euo pipefail
export OMP_NUM_THREADS=1
for method in qs_attn cut; do
  similarity=()
  [ "$method" = cut ] || similarity=(--similarity dot) # the paper's; it was the default when this ran
  nice -n 15 unpaired train "$1" --images "$2" --out "$3-$method" --method "$method" "${similarity[@]}" --seed "${4:-0}" --threads 1 \
    --image-size 128 --load-size 143 --num-workers 0 --base-channels 32 --blocks 9 --num-queries 128 \
    --discriminator-layers 2 --ema-half-life-images 300 --checkpoint-every 50 --keep-checkpoints 50 &
done
wait
