#!/usr/bin/env bash
# QS-Attn Global and CUT with equal numbers of images at 64 px, two runs side by side on one thread each.
# Usage: benchmarks/train_64px.sh DATA DIRECTION IMAGES OUT [SEED]   (for example ../shared/data/emoji AtoB 10000 runs/emoji)
# The results of November 2026 were made with the dot product, so QS-Attn gets it here.
set -euo pipefail
export OMP_NUM_THREADS=1
for method in qs_attn cut; do
  similarity=(); [ "$method" = qs_attn ] && similarity=(--similarity dot)
  unpaired train "$1" --direction "$2" --images "$3" --out "$4-$method" --method "$method" --seed "${5:-0}" --threads 1 \
    --image-size 64 --load-size 64 --num-workers 0 --base-channels 16 --blocks 6 --num-queries 64 \
    --discriminator-layers 2 --ema-half-life-images 500 --checkpoint-every 500 "${similarity[@]}" &
done
wait
python "$(dirname "$0")/compare_runs.py" --data "$1" --direction "$2" --out "$4" --runs "CUT=$4-cut" "QS-Attn=$4-qs_attn"
