#!/usr/bin/env bash
# Builds mobula-<service> images from the binaries in target/release.
#   scripts/images.sh controller proxy preprocess inference
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/base-image.sh debian:bookworm-slim
bash scripts/dist.sh "$@"
for service in "$@"; do
  docker build --quiet --target from-binaries --build-arg "SERVICE=$service" --tag "mobula-$service" . >/dev/null
  echo "image: mobula-$service"
done
