#!/usr/bin/env bash
# Lays out what an image holds beside its base: dist/<service>/, from target/release.
#   scripts/dist.sh controller proxy preprocess inference
set -euo pipefail
cd "$(dirname "$0")/.."

for service in "$@"; do
  binary=target/release/mobula-$service
  [ -x "$binary" ] || { echo "dist: $binary is missing: run make build" >&2; exit 1; }
  root=dist/$service
  rm -rf "$root"
  install -D -m 0755 "$binary" "$root/usr/local/bin/service"
  if [ "$service" = inference ]; then
    bash scripts/fetch-onnxruntime.sh
    mkdir -p "$root/opt/onnxruntime"
    cp -a .ort/lib "$root/opt/onnxruntime/lib"
  fi
done
