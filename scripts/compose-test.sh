#!/usr/bin/env bash
# Starts docker-compose.yml with the images of `make image`, draws a picture through HTTP and gRPC, scales inference to
# two, kills one, draws again, draws with a config that names no model (and is deployed with the token alone), stops everything.
set -euo pipefail
cd "$(dirname "$0")/.."

compose() { if docker compose version >/dev/null 2>&1; then docker compose -p mobula-test "$@"; else docker-compose -p mobula-test "$@"; fi; }
out=$(mktemp -d)
trap 'status=$?; [ $status -eq 0 ] || compose logs --tail 50; compose down --timeout 25 --volumes >/dev/null 2>&1 || true; rm -rf "$out"; exit $status' EXIT

# draw FILE SEED [PREFIX]: retries until the mesh is up, at most a minute.
draw() {
  curl --silent --show-error --fail --retry 60 --retry-delay 1 --retry-all-errors --max-time 60 --output "$1" \
    "http://127.0.0.1:8000${3:-}/imagine?prompt=a%20red%20circle%20on%20a%20blue%20background&seed=$2"
  [ "$(head -c 4 "$1" | tail -c 3)" = PNG ]
}

export MOBULA_BUILD_TARGET=from-binaries
compose up -d --no-build
draw "$out/first.png" 7
compose up -d --no-build --scale inference=2 --scale preprocess=2
draw "$out/scaled.png" 7
cmp "$out/first.png" "$out/scaled.png"
mapfile -t workers < <(compose ps -q inference)
docker kill --signal KILL "${workers[0]}" >/dev/null
draw "$out/after-kill.png" 7
cmp "$out/first.png" "$out/after-kill.png"
# A config that names no model, as Ray's samples, draws with the demo model.
token=$(compose exec -T controller cat /run/mobula/admin/token)
config=http://127.0.0.1:8265/api/serve/applications/
[ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$config")" = 401 ]
curl --silent --show-error --fail --output /dev/null --request PUT --header "authorization: Bearer $token" --header 'content-type: application/json' \
  --data '{"applications": [{"name": "sample", "route_prefix": "/sample", "import_path": "stable_diffusion:entrypoint"}]}' \
  "$config"
draw "$out/sample.png" "7&img_size=128" /sample
echo "compose: the same picture before scaling, after it, and after a killed worker; a picture with no model named; nothing deployed without the token"
