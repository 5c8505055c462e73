#!/bin/sh
# Fetches ONNX Runtime's shared library into .ort/lib, where Mobula looks for it.
#
# The library comes out of the onnxruntime wheel on PyPI; version, wheel and library are pinned by SHA-256. pip only
# downloads: nothing Python is installed or run by Mobula. Running it again does nothing when the library is there.
#
#   scripts/fetch-onnxruntime.sh            into <repository>/.ort/lib
#   scripts/fetch-onnxruntime.sh DIRECTORY  into DIRECTORY (container images do this)
#
# Needs: python3 with pip, sha256sum, and unzip or python3's zipfile. Linux with glibc 2.28 or newer, x86_64 or aarch64.
set -eu

VERSION=1.31.1

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64)
        PLATFORM=manylinux_2_28_x86_64
        WHEEL_SHA256=5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f
        LIBRARY_SHA256=fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3
        ;;
    Linux-aarch64 | Linux-arm64)
        PLATFORM=manylinux_2_28_aarch64
        WHEEL_SHA256=da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3
        LIBRARY_SHA256=8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467
        ;;
    *)
        echo "fetch-onnxruntime: no pinned library for $(uname -s) on $(uname -m)." >&2
        echo "Install ONNX Runtime $VERSION yourself and point ORT_DYLIB_PATH at libonnxruntime." >&2
        exit 1
        ;;
esac

case "${1:-}" in
    -h | --help)
        sed -n '2,10s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    "") target="$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/.ort/lib" ;;
    *) target=$1 ;;
esac

library=libonnxruntime.so.$VERSION

die() {
    echo "fetch-onnxruntime: $1" >&2
    exit 1
}

is_right() { [ -f "$1" ] && echo "$LIBRARY_SHA256  $1" | sha256sum --check --status 2>/dev/null; }

if is_right "$target/$library"; then
    ln -sf "$library" "$target/libonnxruntime.so"
    echo "ONNX Runtime $VERSION is there: $target/libonnxruntime.so"
    exit 0
fi

command -v python3 >/dev/null 2>&1 || die "python3 is needed (only to download); install it, or set ORT_DYLIB_PATH"
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip (Debian: apt-get install python3-pip), or set ORT_DYLIB_PATH"

mkdir -p "$target"
# On the same file system as the target, so that the last move is atomic for those who run at the same time.
scratch=$(mktemp -d "$target/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching ONNX Runtime $VERSION ($PLATFORM, 24 MB) ..."
echo "onnxruntime==$VERSION --hash=sha256:$WHEEL_SHA256" >"$scratch/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --platform "$PLATFORM" --python-version 3.11 --implementation cp --abi cp311 \
    --dest "$scratch" --requirement "$scratch/requirements.txt" ||
    die "the download failed, or its hash is not the pinned one; is the Python package index reachable?"

wheel=$(echo "$scratch"/onnxruntime-*.whl)
member=onnxruntime/capi/$library
if command -v unzip >/dev/null 2>&1; then
    unzip -q -j -o "$wheel" "$member" -d "$scratch" || die "$member is not in $wheel"
else
    python3 - "$wheel" "$member" "$scratch/$library" <<'PYTHON' || die "$member is not in $wheel"
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as source, open(sys.argv[3], "wb") as out:
    shutil.copyfileobj(source, out)
PYTHON
fi
is_right "$scratch/$library" || die "the library's SHA-256 is not $LIBRARY_SHA256"
chmod 0755 "$scratch/$library"
mv -f "$scratch/$library" "$target/$library"
ln -sf "$library" "$target/libonnxruntime.so"
echo "ONNX Runtime $VERSION is in $target/libonnxruntime.so"
