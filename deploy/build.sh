#!/usr/bin/env bash
# build.sh NAME: one service's image, built over the layers of the last build, and pushed under this build's tag.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/names.sh
. deploy/names.sh

name=$1
image=$(image "$name")
export DOCKER_BUILDKIT=1

build() { # TAG [OPTION …]: a cache that is not there yet is only warned of
    docker build --file "$name-service/Dockerfile" --build-arg BUILDKIT_INLINE_CACHE=1 \
        --cache-from "$image:cache" --cache-from "$image:latest" --tag "$image:$1" "${@:2}" .
}

# An image's inline cache has its own layers alone, and what takes long is in the stage before: so that is kept, too.
build cache --target build
build "$TAG" --tag "$image:latest"
for tag in cache latest "$TAG"; do
    docker push "$image:$tag"
done
