#!/bin/sh
# What a release needs to hold: manifests that their tools accept, images that build, and a scan inside them, locked down.
# `make images` calls it with the tools of docker/tools.txt on the PATH.
#
#   ENGINE         docker, or podman (default: the first that answers)
#   BUILD_OPTIONS  for the build, e.g. "--network host"; RUN_OPTIONS for the runs
#   TARGETS        default: api worker; worker-cuda downloads 3 GB, and is tried only where a GPU is
set -eu
cd "$(dirname "$0")/.."
say() { printf 'images: %s\n' "$*" >&2; }
skip() { say "NOT RUN: $*"; }
has() { command -v "$1" >/dev/null 2>&1; }

hadolint docker/Dockerfile
yamllint --strict -d '{extends: relaxed, rules: {line-length: {max: 160}, braces: disable, brackets: disable}}' docker
if has kubectl; then
    mkdir -p build
    for place in base gpu; do
        kubectl kustomize "docker/kubernetes/$place" >"build/kubernetes-$place.yaml"
        kubernetes-validate --kubernetes-version 1.32 --strict --quiet "build/kubernetes-$place.yaml"
    done
else skip "kubectl kustomize, kubernetes-validate (no kubectl)"; fi
if has promtool; then
    promtool check rules docker/prometheus.rules.yaml
    promtool test rules docker/prometheus.test.yaml
else skip "promtool (Debian: prometheus)"; fi
if docker compose version >/dev/null 2>&1; then
    REDIS_PASSWORD=x EGRESS_PASSWORD=x docker compose -f docker/compose.yaml -f docker/compose.gpu.yaml config --quiet
else skip "docker compose config (no docker compose)"; fi

if [ -z "${ENGINE:-}" ]; then
    for ENGINE in docker podman none; do
        [ "$ENGINE" = none ] || ! "$ENGINE" info >/dev/null 2>&1 || break
    done
fi
[ "$ENGINE" != none ] || { skip "builds and runs (neither docker nor podman)"; exit 0; }
targets=${TARGETS:-api worker}
for target in $targets; do
    say "building laescan-$target"
    # shellcheck disable=SC2086  # options are words
    "$ENGINE" build ${BUILD_OPTIONS:-} -f docker/Dockerfile --target "$target" -t "laescan-$target:0.1.0" .
done

locked() { # as compose runs it, without a network
    # shellcheck disable=SC2086
    "$ENGINE" run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
        --security-opt "seccomp=$PWD/docker/seccomp.json" --tmpfs /tmp:size=1g,mode=1777 ${RUN_OPTIONS:-} "$@"
}
for target in $targets; do
    locked "laescan-$target:0.1.0" sh -c '
        [ "$(id -u)" = 10001 ] && ! touch /opt/laescan/x 2>/dev/null && ! command -v pip && laescan --version'
done
case " $targets " in *" worker "*)
    say "a scan in the worker's image"
    locked -v "$PWD/tests/media:/media:ro" laescan-worker:0.1.0 laescan scan --quiet /media/example_inpaint.jpg
    locked laescan-worker:0.1.0 laescan doctor | sed '/^settings/,$d' ;;
esac
say "all is well"
