#!/bin/sh
# constraints.txt in, docker/locks/*.txt out: every wheel that an image may install, with its sha256. `make lock` calls it.
# Run it after each change of pyproject.toml or constraints.txt; a test compares the versions.
# Needs uv (docker/tools.txt). TORCH_CPU_INDEX is where PyTorch's CPU wheels lie (PyPI's are the CUDA ones).
set -eu
cd "$(dirname "$0")/.."
UV=${UV:-uv}
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

lock() { # NAME INPUT [OPTION...]
    name=$1 input=$2
    shift 2
    "$UV" pip compile --quiet --native-tls --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --constraint constraints.txt --output-file "docker/locks/$name.txt" --upgrade "$@" "$input"
    printf '%s: %s packages\n' "$name" "$(grep -c == "docker/locks/$name.txt")"
}

lock build docker/locks/build.in
lock api docker/locks/api.in
lock worker-cuda pyproject.toml --extra cuda --python-platform x86_64-manylinux_2_28
# A folder of wheels will do as an index, too.
if [ -d "$TORCH_CPU_INDEX" ]; then set -- --find-links "$TORCH_CPU_INDEX"; else set -- --index "$TORCH_CPU_INDEX"; fi
lock worker-cpu pyproject.toml --extra cpu --python-platform x86_64-manylinux_2_28 "$@"
