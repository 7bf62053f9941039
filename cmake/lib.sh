# shellcheck shell=bash
# Shared by demo, test, bench and .ci/run. Source it. Written for bash 3.2 too, which macOS has: no mapfile, and an array
# that may be empty is expanded as ${a[@]+"${a[@]}"}.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\n==> %s\n' "$*"; }
die() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}
step() { # prints a command, then runs it
    printf '\n==> '
    printf '%q ' "$@"
    printf '\n'
    "$@"
}

cores() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2; }

# What is needed, as probe=package of Debian and Ubuntu. A probe is a command, or a header in <>.
# shellcheck disable=SC2034 # used by the scripts that source this file
{
    need_tools=("c++=g++" "cmake=cmake" "ninja=ninja-build")
    need_build=("${need_tools[@]}" "<xsimd/xsimd.hpp>=libxsimd-dev")
    need_demo=("${need_build[@]}" "<CLI/CLI.hpp>=libcli11-dev")
    need_test=("${need_build[@]}" "<eigen3/Eigen/Core>=libeigen3-dev" "<catch2/catch.hpp>=catch2"
        "<nlohmann/json.hpp>=nlohmann-json3-dev" "pkg-config=pkg-config")
    need_bench=("${need_build[@]}" "<benchmark/benchmark.h>=libbenchmark-dev" "<eigen3/Eigen/Core>=libeigen3-dev"
        "<cblas.h>=libopenblas-dev" "<dnnl.hpp>=libdnnl-dev" "<fftw3.h>=libfftw3-dev" "pkg-config=pkg-config")
    need_cross=("aarch64-linux-gnu-g++=g++-aarch64-linux-gnu" "qemu-aarch64=qemu-user")
}

present() {
    case $1 in
        "<"*) command -v c++ >/dev/null && c++ -E -x c++ -o /dev/null - <<<"#include $1" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}
# Catch2 3 and Eigen outside of eigen3/ lie elsewhere.
also_present() {
    case $1 in
        "<catch2/catch.hpp>") present "<catch2/catch_test_macros.hpp>" ;;
        "<eigen3/Eigen/Core>") present "<Eigen/Core>" ;;
        *) false ;;
    esac
}

missing_packages() {
    local item
    for item in "$@"; do
        present "${item%=*}" || also_present "${item%=*}" || echo "${item##*=}"
    done | sort -u
}

# install_missing probe=package...: quiet and instant where nothing is missing.
install_missing() {
    local packages=() package names root_do=(env)
    names=$(missing_packages "$@")
    [[ -n $names ]] || return 0
    while IFS= read -r package; do packages+=("$package"); done <<<"$names"
    if ! command -v apt-get >/dev/null; then
        say "not found, please install (names as in Debian): ${packages[*]}"
        # CMake may find the others elsewhere, or fetch them; nothing goes without these.
        if [[ -n $(missing_packages "${need_tools[@]}") ]]; then exit 1; fi
        return 0
    fi
    if (($(id -u) != 0)); then
        command -v sudo >/dev/null || die "no root and no sudo; please install: ${packages[*]}"
        root_do=(sudo env)
    fi
    say "missing: ${packages[*]}"
    step "${root_do[@]}" apt-get update -q
    step "${root_do[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" </dev/null
}

# configured FOLDER NAME=VALUE...: whether the build folder has these options, so that configuring it can be left out.
configured() {
    local cache=$1/CMakeCache.txt option
    shift
    [[ -f $cache && -f ${cache%/*}/build.ninja ]] || return 1
    for option in "$@"; do
        grep -qE "^${option%%=*}:[A-Z]+=${option#*=}\$" "$cache" || return 1
    done
}

# configure FOLDER NAME=VALUE... [-- OPTIONS FOR THE FIRST TIME...]
configure() {
    local folder=$1 options=() first=()
    shift
    while (($# > 0)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    if (($# > 0)); then first=("${@:2}"); fi
    if configured "$folder" "${options[@]}"; then return; fi
    if [[ -f $folder/CMakeCache.txt ]]; then first=(); fi
    step cmake -S "$root" -B "$folder" -G Ninja "${options[@]/#/-D}" ${first[@]+"${first[@]}"}
}

build() { # FOLDER [TARGETS...]
    local folder=$1 targets=()
    shift
    if (($# > 0)); then targets=(--target "$@"); fi
    step cmake --build "$folder" -j "$(cores)" ${targets[@]+"${targets[@]}"}
}
