#!/usr/bin/env bash
# What the mesh does beyond its capacity, in a burst, and over a long time. Each part says what it measured and what is asked,
# and the script fails where that is missed. Needs jq.
#   scripts/loads.sh                        overload, burst and soak
#   scripts/loads.sh overload burst         only these
#   MOBULA_SOAK_SECONDS=120 scripts/loads.sh soak
# Settings: MOBULA_BIN_DIR (target/release), MOBULA_LOAD_MODEL (the demo model; fake: an engine that sleeps as long as a GPU
# would compute, for machines whose cores are in use), MOBULA_LOAD_SECONDS (30), MOBULA_LOAD_ROUNDS (3, of overload),
# MOBULA_SOAK_SECONDS (3600).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BIN=${MOBULA_BIN_DIR:-target/release} MODEL=${MOBULA_LOAD_MODEL:-demo}
readonly SECONDS_EACH=${MOBULA_LOAD_SECONDS:-30} ROUNDS=${MOBULA_LOAD_ROUNDS:-3} SOAK=${MOBULA_SOAK_SECONDS:-3600}
# As long as callers wait: some twenty times what a picture takes alone.
readonly PATIENCE=4
# Answers that no load excuses.
readonly BAD='.counts | .failed + .transport + .wrong'
missed=0
# shellcheck source=scripts/mesh.sh
. scripts/mesh.sh

# The ports are the system's choice; `mobula up` says which.
start_mesh() {
  local flags=()
  if [ "$MODEL" = fake ]; then
    cat >"$work/fake.yaml" <<'YAML'
applications:
- name: default
  route_prefix: /
  import_path: mobula.image:text_to_image
  args: {model: fake, engine: fake, options: {base_us: 1000, row_us: 500, decode_us: 2000}}
YAML
    flags=(--config "$work/fake.yaml")
  fi
  "$BIN/mobula" up --http 127.0.0.1:0 --grpc 127.0.0.1:0 --controller 127.0.0.1:0 --proxy-admin 127.0.0.1:0 \
    --controller-admin 127.0.0.1:0 --rest 127.0.0.1:0 --state-dir "$work/state" "${flags[@]}" >"$work/up.log" 2>&1 &
  mesh=$!
  grpc=
  for _ in $(seq 300); do
    grpc=$(sed -n 's/.*gRPC *\(127[0-9.:]*\).*/\1/p' "$work/up.log" | head -1)
    [ -z "$grpc" ] || break
    kill -0 "$mesh" 2>/dev/null || { cat "$work/up.log"; exit 1; }
    sleep 0.1
  done
  "$BIN/mobula" imagine "a red circle on a blue background" --server "$grpc" --wait 60 -q -o "$work/first.png" >/dev/null
}

# load NAME FLAGS...: leaves NAME.json. What is not good is judged by its caller.
load() {
  local name=$1; shift
  "$BIN/mobula-loadtest" --target "$grpc" --slo "${PATIENCE}s" --timeout "${PATIENCE}s" --require 0 --json "$work/$name.json" "$@" >"$work/$name.txt"
}
reckon() { awk "BEGIN {printf \"%.${2:-1}f\", $1}"; }

# ask WHAT CONDITION: whether the condition (awk) holds.
ask() {
  if awk "BEGIN {exit !($2)}"; then echo "          reached: $1"; else echo "          MISSED: $1"; missed=1; fi
}

# capacity: what callers who wait for each other are served, per second; leaves it in $capacity.
capacity() {
  load closed --callers 32 --warmup 5s --duration "${SECONDS_EACH}s"
  capacity=$(figure closed .rates.answered)
}

# By turns, since machines are not always equally fast: what is good at capacity and near it, and then beyond it.
run_overload() {
  start_mesh
  capacity
  local peak good percents=() failed=0
  for _ in $(seq "$ROUNDS"); do
    peak=0
    for part in 0.9 1.0; do
      load "at$part" --rate "$(reckon "$capacity * $part" 2)" --warmup 5s --duration "${SECONDS_EACH}s"
      good=$(figure "at$part" .rates.good)
      peak=$(awk "BEGIN {print ($good > $peak) ? $good : $peak}")
    done
    load beyond --rate "$(reckon "$capacity * 1.5" 2)" --warmup 10s --duration "${SECONDS_EACH}s"
    good=$(figure beyond .rates.good)
    percents+=("$(reckon "100 * $good / $peak")")
    failed=$((failed + $(figure beyond "$BAD")))
    echo "overload  capacity $(reckon "$capacity")/s; good within $PATIENCE s at most $(reckon "$peak")/s, at 1.5 times capacity $(reckon "$good")/s: ${percents[-1]} %"
    echo "          refused $(figure beyond .counts.refused), late $(figure beyond .counts.deadline), failed $(figure beyond "$BAD") of $(figure beyond .counts.due); a refusal took p99 $(figure beyond .refusal_ms.p99) ms"
  done
  stop_mesh
  ask "90 % of the peak, in the median of $ROUNDS rounds" "$(printf '%s\n' "${percents[@]}" | sort -n | sed -n "$(((ROUNDS + 1) / 2))p") >= 90"
  ask "nothing failed" "$failed == 0"
}

run_burst() {
  start_mesh
  capacity
  local low high before after since=$((20 + 60 + 5))
  low=$(reckon "$capacity / 2" 2) high=$(reckon "$capacity * 4" 2)
  before=$(family)
  load burst --stages "20s@$low,60s@$high,30s@$low" --warmup 0s
  after=$(family)
  stop_mesh
  local late
  late=$(figure burst "[.series[] | select(.at >= $since)] | (map(.good) | add) / ([1, (map(.due) | add)] | max)")
  echo "burst     $low/s, 60 s of $high/s, $low/s: due $(figure burst .counts.due), good $(figure burst .counts.good), refused $(figure burst .counts.refused), late $(figure burst .counts.deadline), failed $(figure burst "$BAD")"
  echo "          from 5 s after the burst on $(reckon "100 * $late" 1) % good"
  ask "nothing failed" "$(figure burst "$BAD") == 0"
  ask "no process ended" "\"$(tr '\n' ' ' <<<"$before")\" == \"$(tr '\n' ' ' <<<"$after")\""
  ask "back to normal 5 s after it: 99 % good" "$late >= 0.99"
}

run_soak() {
  start_mesh
  capacity
  load soak --rate "$(reckon "$capacity * 0.7" 2)" --warmup 5s --duration "${SOAK}s" &
  local judge=$! every
  every=$(reckon "$SOAK / 60" 2)
  while kill -0 "$judge" 2>/dev/null; do resident >>"$work/resident"; sleep "$every"; done
  wait "$judge"
  stop_mesh
  # The first quarter fills caches and heaps.
  local early late
  early=$(awk '{v[NR] = $1} END {for (i = int(NR / 4); i < NR / 2; i++) if (v[i] > most) most = v[i]; print most}' "$work/resident")
  late=$(awk '{v[NR] = $1} END {for (i = int(NR * 3 / 4); i <= NR; i++) if (v[i] > most) most = v[i]; print most}' "$work/resident")
  echo "soak      $SOAK s at $(figure soak '.load'): $(figure soak .counts.due) due, $(figure soak .good_percent) % good, failed $(figure soak "$BAD")"
  echo "          memory at most $early MiB in the second quarter, $late MiB in the last"
  ask "nothing failed" "$(figure soak "$BAD") == 0"
  ask "memory within 5 %" "$late <= 1.05 * $early"
}

for part in ${*:-overload burst soak}; do "run_$part"; done
exit "$missed"
