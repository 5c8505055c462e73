# For scripts that measure a mesh, which source it: a folder for their work, the mesh's process in $mesh, its end, and how much
# memory it has. Needs jq.

work=$(mktemp -d)
mesh=

stop_mesh() {
  [ -z "$mesh" ] || { kill -TERM "$mesh" 2>/dev/null || true; wait "$mesh" 2>/dev/null || true; mesh=; }
}
trap 'stop_mesh; rm -rf "$work"' EXIT

# figure NAME FILTER: out of the report NAME.json.
figure() { jq -r "$2" "$work/$1.json"; }

# family: `mobula up` and everything below it, a process a line.
family() {
  local level=$mesh
  echo "$mesh"
  while level=$(pgrep -P "$(tr ' ' , <<<"$level")" | tr '\n' ' '); level=${level% }; [ -n "$level" ]; do tr ' ' '\n' <<<"$level"; done
}

# resident: MiB of all of them, to a tenth.
resident() {
  family | while read -r pid; do awk '/^VmRSS/ {print $2}' "/proc/$pid/status" 2>/dev/null || true; done |
    awk '{sum += $1} END {printf "%.1f\n", sum / 1024}'
}
