#!/usr/bin/env bash
# QS-Attn and CUT on the embedded drawings with the demo's recipe, scored ten times during training: the runs of docs/results.md.
# Usage: benchmarks/train_scored.sh OUT [IMAGES] [SEEDS...]   (OUT/qs_attn_seed0, OUT/cut_seed0, ...; two runs side by side, one thread each)
set -euo pipefail
out=$1 images=${2:-3300}
shift "$(($# < 2 ? $# : 2))"
seeds=("${@:-0}")
data=$(python -c 'from unpaired.data import embedded_dataset; print(embedded_dataset("fluent").root)')
export OMP_NUM_THREADS=1
for seed in "${seeds[@]}"; do
  for method in qs_attn cut; do
    unpaired train "$data" --direction BtoA --out "$out/${method}_seed$seed" --method "$method" --seed "$seed" --images "$images" \
      --image-size 64 --load-size 64 --num-workers 0 --base-channels 16 --blocks 6 --num-queries 64 --discriminator-layers 2 \
      --ema-half-life-images 300 --log-every 20 --accelerator cpu --threads 1 --score-every "$((images / 10))" &
  done
  wait
done
