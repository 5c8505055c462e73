#!/usr/bin/env bash
# Drives a mesh with Ray's own `serve` command: deploy, status, config, shutdown, for every sample config, with Ray's own
# models as the judges of what the mesh answers.
#   scripts/ray-cli.sh                                 binaries of target/release; Ray is installed into .tools/ray if missing
#   MOBULA_BIN_DIR=target/debug RAY_SERVE=/venv/bin/serve scripts/ray-cli.sh
set -euo pipefail
cd "$(dirname "$0")/.."

readonly RAY='ray[serve]==2.60.0' SAMPLES=crates/schema/tests/samples
# Seconds; far above what anything here takes.
readonly PATIENCE=60

say() { printf 'ray-cli: %s\n' "$*" >&2; }
fail() {
  say "failed: $*"
  tail -n 40 "$work/up.log" >&2 2>/dev/null || true
  exit 1
}

serve=${RAY_SERVE:-.tools/ray/bin/serve}
if [ ! -x "$serve" ]; then
  say "installing $RAY into .tools/ray"
  python3 -m venv .tools/ray
  .tools/ray/bin/pip install --quiet --disable-pip-version-check "$RAY"
  serve=.tools/ray/bin/serve
fi
python=$(dirname "$serve")/python
bins=${MOBULA_BIN_DIR:-target/release}

work=$(mktemp -d)
mesh=
stop() {
  if [ -n "$mesh" ]; then
    kill -TERM "$mesh" 2>/dev/null || true
    wait "$mesh" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap stop EXIT

# Six free ports, all different.
read -r http grpc controller rest proxy_admin controller_admin < <("$python" - <<'PY'
import socket
sockets = [socket.socket() for _ in range(6)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
ports = [s.getsockname()[1] for s in sockets]
for s in sockets:
    s.close()
print(*(f"127.0.0.1:{port}" for port in ports))
PY
)
# The mesh is closed: Ray's clients show the token as they show their own cluster's.
token=$("$python" -c 'import secrets; print(secrets.token_urlsafe(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$token
MOBULA_ADMIN_TOKEN=$token "$bins/mobula" up --engine fake --state-dir "$work/state" --http "$http" --grpc "$grpc" --controller "$controller" \
  --rest "$rest" --proxy-admin "$proxy_admin" --controller-admin "$controller_admin" >"$work/up.log" 2>&1 &
mesh=$!

# until WHAT COMMAND...: runs it again until it succeeds.
until_true() {
  local what=$1 end=$((SECONDS + PATIENCE))
  shift
  while ! "$@"; do
    kill -0 "$mesh" 2>/dev/null || fail "the mesh ended: $what"
    [ "$SECONDS" -lt "$end" ] || fail "waited $PATIENCE s in vain: $what"
    sleep 0.2
  done
}
until_true "the mesh" grep -q 'Mobula is up' "$work/up.log"

ray() { "$serve" "$1" -a "http://$rest" "${@:2}" 2>"$work/ray.err" || fail "serve $*: $(cat "$work/ray.err")"; }
check() { "$python" scripts/ray-check.py "$@" --rest "http://$rest"; }

say "a caller without the token, or with another one, is refused"
for other in "RAY_AUTH_MODE=disabled" "RAY_AUTH_TOKEN=$(tr 'A-Za-z' 'B-ZAb-za' <<<"$token")"; do
  if env "$other" "$serve" status -a "http://$rest" >"$work/refused.out" 2>&1; then fail "status was told: $other"; fi
  grep -q AuthenticationError "$work/refused.out" || fail "no refusal: $(cat "$work/refused.out")"
done

say "status before anything is deployed"
ray status >"$work/status.yaml"
check status "$work/status.yaml" default

for sample in "$SAMPLES"/*.yaml; do
  name=$(basename "$sample" .yaml)
  say "$name: deploy"
  check prepare "$sample" "$work/$name.yaml" || fail "$name cannot be prepared"
  ray deploy "$work/$name.yaml" >/dev/null
  until_true "$name runs" check running "$work/$name.yaml"
  ray status >"$work/status.yaml"
  check deployed "$work/$name.yaml" "$work/status.yaml" || fail "$name: status"
  ray config >"$work/config.yaml"
  check config "$work/$name.yaml" "$work/config.yaml" || fail "$name: config"
done

say "a config that is refused is refused with Ray's code and with all of its problems"
cat >"$work/bad.yaml" <<'YAML'
applications:
- name: bad
  import_path: mobula.image:text_to_image
  args: {model: fake}
  deployments:
  - name: pipeline
    num_replicas: 1
    max_ongoing_requests: 2
    user_config: {max_batch_size: 8}
  - name: nobody
YAML
if "$serve" deploy -a "http://$rest" "$work/bad.yaml" >"$work/bad.out" 2>&1; then fail "a bad config was accepted"; fi
grep -q 'status code 400' "$work/bad.out" || fail "no 400: $(cat "$work/bad.out")"
grep -q 'nobody' "$work/bad.out" || fail "the deployment is not named: $(cat "$work/bad.out")"

say "shutdown"
ray shutdown -y >/dev/null
until_true "everything is gone" check gone
ray config | grep -q 'No configuration was found' || fail "a config is left"
say "passed: Ray's command and Ray's models agree with the mesh"
