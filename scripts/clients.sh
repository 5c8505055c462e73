#!/usr/bin/env bash
# Clients that are not ours against a mesh that draws: grpcurl, buf, stubs for Python, Go and C++ (the examples), gRPC-Web,
# a browser, and the clients of Ray's samples (requests, a batch, Gradio, Locust). Installs what is missing, and ends what it starts.
#   scripts/clients.sh [BINARIES]      # their folder, by default target/release
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BINARIES=${1:-target/release} PROMPT="a red circle on a blue background"
readonly SERVICE=mobula.image.v1.ImageService ASK="{\"prompt\": \"$PROMPT\", \"seeds\": [\"7\"]}"
readonly FOREIGN=.tools/foreign/bin TOOLS=.tools/venv/bin
readonly DEBIAN=(g++ make pkg-config jq protobuf-compiler protobuf-compiler-grpc libgrpc++-dev
  golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go
  protoc-gen-go-grpc chromium)

say() { printf 'clients: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

install() {
  local missing=() package
  for package in "${DEBIAN[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  bash scripts/tools.sh buf clients foreign
}

build() {
  make -s -C examples/python PYTHON="$PWD/$FOREIGN/python"
  make -s -C examples/go
  make -s -C examples/cpp -j2 GOOGLEAPIS="$("$FOREIGN/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  "$FOREIGN/python" -m grpc_tools.protoc -I proto --python_out="$work" --grpc_python_out="$work" \
    mobula/common/v1/common.proto mobula/image/v1/image.proto ray/serve/serve.proto
}

start() {
  local ports
  read -r -a ports < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
print(*[one.getsockname()[1] for one in held])')
  http=127.0.0.1:${ports[0]} grpc=127.0.0.1:${ports[1]} pages=${ports[6]}
  MOBULA_ALLOWED_ORIGINS=http://127.0.0.1:$pages "$BINARIES/mobula" up --http "$http" --grpc "$grpc" --controller "127.0.0.1:${ports[2]}" --rest "127.0.0.1:${ports[3]}" \
    --proxy-admin "127.0.0.1:${ports[4]}" --controller-admin "127.0.0.1:${ports[5]}" --state-dir "$work/state" \
    >"$work/up.log" 2>&1 &
  mesh=$!
  for _ in $(seq 600); do
    grep -q "Mobula is up" "$work/up.log" && return
    kill -0 "$mesh" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/up.log" >&2
  fail "the mesh does not come up"
}

# same CLIENT FILE: every client's picture has the first one's bytes.
same() {
  local digest
  digest=$(sha256sum <"$2" | cut -d ' ' -f 1)
  [ "$digest" = "${first:=$digest}" ] || fail "$1 drew $digest, the first client $first"
  say "$1: drew the picture"
}

# told CLIENT COMMAND...: who asks for nonsense is told both fields, and fails.
told() {
  local client=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$client did not fail: $said"; fi
  [[ $said == *prompt* && $said == *width* || $said == *prompt* && $said == *steps* ]] || fail "$client was told: $said"
}

# The picture in the JSON of a stream of events.
picture() { jq -r 'select(.image).image.data' | base64 -d; }

examples() {
  local file=$work/example.png example
  local -x PYTHONPATH=examples/python/build/stubs
  for example in "$FOREIGN/python examples/python/imagine.py" examples/cpp/build/imagine examples/go/build/imagine; do
    # shellcheck disable=SC2086 # a command and its argument
    $example --server "$grpc" --seed 7 "$PROMPT" "$file" >/dev/null
    same "${example##* }" "$file"
    rm "$file"
    # shellcheck disable=SC2086
    told "${example##* }" $example --server "$grpc" --steps 99999 "" "$file"
    [ ! -e "$file" ] || fail "${example##* } wrote a file for nonsense"
  done
}

tools() {
  local curl version name nonsense='{"prompt": "", "width": 100}'
  "$TOOLS/grpcurl" -plaintext -d "$ASK" "$grpc" $SERVICE/Generate | picture >"$work/grpcurl.png"
  same "grpcurl (reflection v1alpha)" "$work/grpcurl.png"
  told grpcurl "$TOOLS/grpcurl" -plaintext -d "$nonsense" "$grpc" $SERVICE/Generate
  "$TOOLS/grpcurl" -plaintext "$grpc" list | while read -r name; do
    "$TOOLS/grpcurl" -plaintext -d "{\"service\": \"$name\"}" "$grpc" grpc.health.v1.Health/Check | grep -q '"SERVING"' ||
      fail "$name does not serve"
  done
  for version in grpc-v1 grpc-v1alpha; do
    curl=("$TOOLS/buf" curl --protocol grpc --http2-prior-knowledge --reflect-protocol "$version")
    "${curl[@]}" -d "$ASK" "http://$grpc/$SERVICE/Generate" | picture >"$work/buf.png"
    same "buf curl (reflection $version)" "$work/buf.png"
    told buf "${curl[@]}" -d "$nonsense" "http://$grpc/$SERVICE/Generate"
  done
  # With the contract at hand it needs no reflection, and so speaks HTTP/1.1.
  curl=("$TOOLS/buf" curl --protocol grpcweb --reflect=false --schema proto)
  "${curl[@]}" -d "$ASK" "http://$grpc/$SERVICE/Generate" | picture >"$work/web.png"
  same "buf curl (gRPC-Web, HTTP/1.1)" "$work/web.png"
  told "buf curl (gRPC-Web)" "${curl[@]}" -d "$nonsense" "http://$grpc/$SERVICE/Generate"
  curl+=(--http2-prior-knowledge)
  "${curl[@]}" -d "$ASK" "http://$grpc/$SERVICE/Generate" | picture >"$work/web.png"
  same "buf curl (gRPC-Web, HTTP/2)" "$work/web.png"
  PYTHONPATH=$work "$FOREIGN/python" e2e/clients/grpc_check.py "$grpc" "$first"
}

# page ORIGIN: what a page of this origin says that came of its calls.
page() {
  timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$work/chromium" --virtual-time-budget=20000 \
    --dump-dom "$1/browser.html?server=$grpc" 2>/dev/null | sed -n 's/.*<pre id="told">\(.*\)<\/pre>.*/\1/p'
}

browser() {
  local said
  python3 -m http.server "$pages" --bind 127.0.0.1 --directory e2e/clients >/dev/null 2>&1 &
  pages_server=$!
  until curl --silent --fail --output /dev/null "http://127.0.0.1:$pages/browser.html"; do sleep 0.1; done
  said=$(page "http://127.0.0.1:$pages")
  [ "$said" = "drawn: status 0, messages, named drawn; refused: status 3, no messages, named refused" ] ||
    fail "a page in a browser: $said"
  # The same page under another name is of another origin.
  said=$(page "http://localhost:$pages")
  [[ $said == "not let in: "* ]] || fail "a page of another origin: $said"
  say "$(chromium --version 2>/dev/null | cut -d ' ' -f 1,2): a page draws, one of another origin does not"
}

ray() {
  local clients=$PWD/e2e/clients python=$PWD/$FOREIGN/python locust=$PWD/$FOREIGN/locust
  cd "$work"
  "$python" "$clients/ray_check.py" "http://$http"
  "$python" "$clients/ray_request.py" "http://$http" output.png
  "$python" "$clients/ray_batch.py" --address "http://$http" --num_requests 8 --save_pictures 2>/dev/null
  "$python" -c 'from PIL import Image; assert [Image.open(f).size for f in ("output.png", "diffusion_results.png")] == [(128, 128), (512, 256)]'
  say "Ray's request and batch scripts: drew their pictures"
  SERVICE_NAME=http://$http "$python" "$clients/ray_gradio.py" check
  "$locust" -f "$clients/ray_locust.py" --headless --only-summary -u 4 -r 4 -t 4s -H "http://$http" >locust.log 2>&1 ||
    { cat locust.log >&2; fail "locust saw failures"; }
  say "$(grep -m 1 Aggregated locust.log | awk '{print "locust: " $2 " requests, " $3 " failed"}')"
  cd - >/dev/null
}

work=$(mktemp -d) mesh='' pages_server=''
finish() {
  [ -z "$pages_server" ] || kill "$pages_server" 2>/dev/null || true
  [ -z "$mesh" ] || { kill -TERM "$mesh"; wait "$mesh"; } 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
install
build
start
examples
tools
browser
ray
say "all of them drew $first in ${SECONDS} s"
