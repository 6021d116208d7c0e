# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tools/install, tools/bench and tools/test share. Sourced, not run: it
# enters the repository's root and makes errors fatal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OLDEST_CUDA=12.6
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

has_gpu() {
  [ -e /dev/nvidiactl ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU '
}

nvcc_version() { "$1" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p'; }

# The first nvcc that is new enough, in the order CMake looks; or nothing.
usable_nvcc() {
  local nvcc
  for nvcc in "${CUDA_HOME:-}/bin/nvcc" "${CUDA_PATH:-}/bin/nvcc" \
    "$PWD/.deps/cuda/bin/nvcc" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    if [ -x "$nvcc" ] && at_least "$(nvcc_version "$nvcc")" "$OLDEST_CUDA"; then
      printf '%s\n' "$nvcc"
      return
    fi
  done
}

# Makes CMake take the toolkit that usable_nvcc found.
use_cuda() {
  CUDA_HOME=$(dirname "$(dirname "$1")")
  export CUDA_HOME
}

# The GPUs' architectures as CMake lists them, or nothing if the driver does not
# say. Hopper's own instructions are in 90a alone, which "native" would not give.
gpu_architectures() {
  { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || true; } |
    tr -d . | sort -u | sed -n -e 's/^90$/90a/' -e 's/^\([0-9]\{2,\}a\{0,1\}\)$/\1-real/p' |
    paste -sd ';'
}

# Arguments of CMake that are the same for every build.
cmake_arguments() {
  if command -v ccache >/dev/null; then
    printf '%s\n' -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache
  fi
}
