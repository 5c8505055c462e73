#!/usr/bin/env bash
# Makes the virtual environment of the Ray Serve application, pinned.
#   loadtest/ray/install.sh DIR     torch without CUDA where its index can be reached, PyPI's otherwise (6 GB)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
readonly here DIR=${1:?where to} TORCH=torch==2.15.0 CPU_INDEX=https://download.pytorch.org/whl/cpu

[ -x "$DIR/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$DIR"
pip=("$DIR/bin/pip" install --quiet --disable-pip-version-check)
if ! "$DIR/bin/python" -c 'import torch' 2>/dev/null; then
  if curl --silent --fail --max-time 10 --output /dev/null "$CPU_INDEX/torch/"; then
    "${pip[@]}" --index-url "$CPU_INDEX" "$TORCH"
  else
    echo "ray: $CPU_INDEX cannot be reached; taking torch with CUDA from PyPI, which takes more memory" >&2
    "${pip[@]}" "$TORCH"
  fi
fi
"${pip[@]}" --requirement "$here/requirements.txt"
