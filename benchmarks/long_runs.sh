#!/usr/bin/env bash
# Long trainings on horse2zebra beside everything else: one thread each, at the lowest priority, outside the repository.
#
#   benchmarks/long_runs.sh [start|status|stop|records] [NAME...]
#
# start    starts each run, or resumes it from its newest checkpoint; one that is running or finished is left alone
# status   what runs, and how far it is
# stop     asks each to write a checkpoint and end, and waits for that
# records  copies scores.jsonl, log.jsonl and run.yaml of each to benchmarks/results/long_runs (never pictures or
#          weights: horse2zebra is for research only)
#
# The runs:
#   cut      CUT, the paper's recipe with full networks (64 channels, 9 blocks, N = 256), bf16-mixed, seed 0
#   qs_attn  QS-Attn Global with the paper's dot product, the same otherwise
#   quick    the quick recipe at 256 px (286 loaded); by name only: long_runs.sh start quick
#   drawings the quick recipe on the drawings of the package, 64 px, for the model that the package brings along; by
#            name only
#
# 128 px (load 143, the paper's 286 / 256) and 100,000 images each: half at full learning rate, half in linear decay,
# as in the paper. Its own 400 epochs (533,600 images) at 256 px would take weeks of one core; 100,000 are 75 epochs of
# trainB, or one to two days of one core at 1 to 2 s a step, and the schedule ends. Scores every 5,000 images are
# on the test images, of averaged and last weights: a record over time that chooses nothing (report the end, not the
# best).
# Checkpoints every 500 images, some 15 minutes apart, two are kept: a session that dies loses no more than that,
# and what is resumed equals what was never interrupted.
#
# A run holds a lock (OUT/NAME.lock) as long as its process lives, however it ends; a second start finds it and does
# nothing. OUT/NAME.log has what the command printed; OUT/NAME.pid is its process, for `stop`.
#
# Set from outside: LONG_RUNS_OUT (../long_runs), LONG_RUNS_DATA (../shared/data/horse2zebra), LONG_RUNS_RECORDS,
# LONG_RUNS_OPTIONS (more options of `unpaired train`, which win over those below; only before the first start),
# PYTHON (python).
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${LONG_RUNS_OUT:-$repository/../long_runs}
data=${LONG_RUNS_DATA:-$repository/../shared/data/horse2zebra}
records=${LONG_RUNS_RECORDS:-$repository/benchmarks/results/long_runs}
python=${PYTHON:-python}
read -r -a more <<<"${LONG_RUNS_OPTIONS:-}"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

names=(cut qs_attn)
drawings=$repository/src/unpaired/data/fluent

paper=(--image-size 128 --load-size 143 --base-channels 64 --blocks 9 --precision bf16-mixed)
common=(--images 100000 --seed 0 --accelerator cpu --threads 1 --num-workers 0 --score-every 5000 --sample-every 5000
  --log-every 500 --checkpoint-every 500 --keep-checkpoints 2)

options() { # NAME: the options of its training, one a line
  case $1 in
    cut) printf '%s\n' --method cut "${paper[@]}" "${common[@]}" ;;
    qs_attn) printf '%s\n' --method qs_attn --attention global --similarity dot "${paper[@]}" "${common[@]}" ;;
    quick) printf '%s\n' --recipe quick --image-size 256 --precision bf16-mixed "${common[@]}" ;;
    drawings) printf '%s\n' --recipe quick --direction BtoA --image-size 64 --load-size 64 --generator light_smooth \
      --augment-noise 0.08 --no-batch-deviation --precision bf16-mixed --ema-half-life-images 3000 "${common[@]}" ;;
    *) echo "long_runs.sh: there is no run '$1'; known: ${names[*]} quick drawings" >&2 && return 2 ;;
  esac
}

running() { # NAME: whether its process holds the lock
  [ -e "$out/$1.lock" ] && ! flock --nonblock "$out/$1.lock" true
}

seen() { # NAME: images seen according to its log
  local last
  last=$(tail -n 1 "$out/$1/log.jsonl" 2>/dev/null || true)
  [[ $last =~ \"images_seen\":\ *([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

finished() { # NAME
  [ -e "$out/$1.log" ] && tail -n 3 "$out/$1.log" | grep -q '^Finished after'
}

start() {
  local settings images=$data
  if [ "$1" = drawings ]; then images=$drawings; fi
  if running "$1"; then echo "$1: is running already (process $(cat "$out/$1.pid"))" && return; fi
  if finished "$1"; then echo "$1: is finished" && return; fi
  if [ ! -d "$images/trainA" ]; then
    echo "long_runs.sh: $images/trainA is missing; set LONG_RUNS_DATA to horse2zebra" >&2
    return 2
  fi
  settings=$(options "$1")
  mapfile -t settings <<<"$settings"
  # The lock is taken here and inherited by the training process, the only one that keeps it open.
  (
    exec 9>"$out/$1.lock"
    flock --nonblock 9 || { echo "$1: is being started by another call" && exit 0; }
    setsid bash -c '(echo 19 >/proc/self/autogroup) 2>/dev/null || true; exec nice -n 19 "$@"' "$0" \
      "$python" -m unpaired train "$images" --out "$out/$1" "${settings[@]}" ${more[@]+"${more[@]}"} \
      >>"$out/$1.log" 2>&1 </dev/null &
    echo $! >"$out/$1.pid" # setsid does not fork here, so this is the training itself
    echo "$1: started; $out/$1.log"
  )
}

status() {
  local state=stopped
  if running "$1"; then state="running (process $(cat "$out/$1.pid"))"; elif finished "$1"; then state=finished; fi
  echo "$1: $state, $(seen "$1") images seen"
}

stop() {
  local process
  if ! running "$1"; then echo "$1: is not running" && return; fi
  process=$(cat "$out/$1.pid")
  kill -TERM "$process"
  for _ in $(seq 1200); do
    running "$1" || { echo "$1: stopped after $(seen "$1") images" && return; }
    sleep 0.25
  done
  echo "long_runs.sh: $1 (process $process) has not ended within 5 minutes; see $out/$1.log" >&2
  return 1
}

records() {
  local file found=0
  mkdir -p "$records"
  for file in scores.jsonl log.jsonl run.yaml; do
    if [ -e "$out/$1/$file" ]; then cp "$out/$1/$file" "$records/$1.$file" && found=1; fi
  done
  if [ $found = 1 ]; then echo "$1: $records/$1.*"; else echo "$1: has no records yet"; fi
}

command=${1:-start}
case $command in
  start | status | stop | records) ;;
  *) echo "long_runs.sh: there is no command '$command'; known: start, status, stop, records" >&2 && exit 2 ;;
esac
shift || true
if [ $# -gt 0 ]; then
  for name in "$@"; do options "$name" >/dev/null; done
  names=("$@")
fi
mkdir -p "$out"
for name in "${names[@]}"; do "$command" "$name"; done
