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
for method in qs_attn cut; do unpaired evaluate "$4-$method" "$1" --direction "$2"; done
unpaired compare "$4-cut" "$4-qs_attn" --out "$4.md"
unpaired report "$4-cut" "$4-qs_attn" "$1" --out "$4.html" --figures "$4-figures"
