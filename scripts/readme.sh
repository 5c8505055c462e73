#!/usr/bin/env bash
# Runs the commands of a Markdown file as written: every ```sh block, in order, in one shell that stops at the first
# failure. Blocks of any other kind (```text, ```python, ```yaml) are for reading.
#   scripts/readme.sh README.md
set -euo pipefail
file=${1:?Markdown file}
commands=$(mktemp)
trap 'rm -f "$commands"' EXIT
awk '/^```sh$/ {on = 1; next} /^```/ {on = 0} on' "$file" > "$commands"
[ -s "$commands" ] || { echo "readme: $file has no \`\`\`sh block" >&2; exit 1; }
cd "$(dirname "$file")"
bash -exuo pipefail "$commands"
