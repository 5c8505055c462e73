#!/usr/bin/env bash
# Starts the mesh from target/release on free ports, draws one picture, stops the mesh.
#   scripts/demo.sh "a red circle on a blue background" out.png
set -euo pipefail
cd "$(dirname "$0")/.."

prompt=${1:?prompt} out=${2:?output file}
state=$(mktemp -d)
http=127.0.0.1:${MOBULA_DEMO_HTTP_PORT:-8000} grpc=127.0.0.1:${MOBULA_DEMO_GRPC_PORT:-9000}

target/release/mobula up --http "$http" --grpc "$grpc" --state-dir "$state" &
mesh=$!
trap 'kill -TERM $mesh 2>/dev/null || true; wait $mesh 2>/dev/null || true; rm -rf "$state"' EXIT

target/release/mobula imagine "$prompt" -o "$out" --server "$grpc" --wait 30
target/release/mobula status
