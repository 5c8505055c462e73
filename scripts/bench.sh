#!/usr/bin/env bash
# Measures what ARCHITECTURE.md reports, each figure beside what it is compared with, in one run. Needs jq and quiet cores.
#   scripts/bench.sh            everything but cores
#   scripts/bench.sh mesh       one part: engine, start, mesh, pictures, controller; or cores
# The engine's figures are kept in target/bench/engine.json and drawn to docs/bench-engine.svg.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SECONDS_EACH=${MOBULA_BENCH_SECONDS:-8} ROUNDS=${MOBULA_BENCH_ROUNDS:-3}
readonly HTTP=127.0.0.1:18000 GRPC=127.0.0.1:19000 CONTROLLER=127.0.0.1:17265
readonly BIN=target/release
# shellcheck source=scripts/mesh.sh
. scripts/mesh.sh

# start_mesh FLAGS...: returns once the mesh draws.
start_mesh() {
  "$BIN/mobula" up --http "$HTTP" --grpc "$GRPC" --controller "$CONTROLLER" --proxy-admin 127.0.0.1:0 \
    --controller-admin 127.0.0.1:0 --rest 127.0.0.1:0 --state-dir "$work/state" "$@" >"$work/up.log" 2>&1 &
  mesh=$!
  "$BIN/mobula" imagine "a red circle on a blue background" --seed 7 --server "$GRPC" --wait 60 -q -o "$work/first.png" >/dev/null
}

# load NAME FLAGS...: a closed loop over gRPC; leaves NAME.json.
load() {
  local name=$1; shift
  "$BIN/mobula-loadtest" --target "$GRPC" --duration "${SECONDS_EACH}s" --json "$work/$name.json" "$@" >"$work/$name.txt" || { cat "$work/$name.txt"; exit 1; }
}
median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

bench_start() {
  for _ in $(seq "$ROUNDS"); do
    local begin; begin=$(date +%s%N)
    start_mesh
    echo $((($(date +%s%N) - begin) / 1000000)) >>"$work/start"
    resident >>"$work/resident"
    stop_mesh
  done
  echo "start     mobula up to the first picture on disk: $(median <"$work/start") ms (asked: under 2000)"
  echo "memory    all processes after one picture: $(printf %.0f "$(median <"$work/resident")") MiB resident (asked: under 250)"
}

bench_mesh() {
  start_mesh --engine fake
  load one --callers 1 --steps 1
  load many --callers 64 --steps 1 --connections 4
  echo "mesh      fake engine, 64 callers: $(figure many '.rates.answered | floor') requests/s (asked: 5000)"
  echo "mesh      fake engine, one caller: p50 $(figure one '.latency_ms.p50') ms, p99 $(figure one '.latency_ms.p99') ms (asked: p50 under 1)"
  stop_mesh
}

engine() { cargo bench --quiet --locked -p mobula-inference --bench engine -- "$@"; }

# Rows beside bare sessions, deadlines above capacity, ticks beside the model.
bench_engine() {
  mkdir -p docs
  engine rows deadlines ticks --svg "$PWD/docs/bench-engine.svg"
}

# One pool of threads or several; only for who wants to know how the cores are best divided.
bench_cores() {
  engine cores
}

# What an idle controller costs with 1,000 workers, 5,000 replicas and 50 proxies.
bench_controller() {
  cargo bench --quiet --locked -p mobula-controller --bench idle -- "${MOBULA_BENCH_WORKERS:-1000}" 50 60
}

bench_pictures() {
  cargo bench --quiet --locked -p mobula-inference --bench engine --no-run
  start_mesh
  load warm --callers 16
  for round in $(seq "$ROUNDS"); do
    engine bare --models demo --seconds "$SECONDS_EACH" | tail -1 >>"$work/bare"
    load "round$round" --callers 16
    figure "round$round" .rates.answered >>"$work/mesh"
  done
  local bare mesh_rate
  bare=$(median <"$work/bare") mesh_rate=$(median <"$work/mesh")
  echo "pictures  demo model, 128 x 128, 20 steps, guidance: mesh $(printf %.1f "$mesh_rate")/s, bare sessions $(printf %.1f "$bare")/s: $(awk -v a="$mesh_rate" -v b="$bare" 'BEGIN {printf "%.0f", 100 * a / b}') % (asked: 90)"
  echo "memory    under that load: $(printf %.0f "$(resident)") MiB resident"
  stop_mesh
}

for part in "${@:-engine start mesh controller pictures}"; do
  for name in $part; do "bench_$name"; done
done
