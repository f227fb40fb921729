#!/usr/bin/env bash
# All five new revisions are asked whether they are well, and only if all are, the traffic moves to them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/names.sh
. deploy/names.sh

ill=()
for name in "${SERVICES[@]}"; do
    for path in /health "$CHECK"; do
        echo "$(url "$name" candidate)$path"
        # The answer says what is not well, and nothing that is secret.
        curl --silent --show-error --fail-with-body --max-time 20 --retry 5 --retry-delay 3 --retry-all-errors \
            "$(url "$name" candidate)$path" || { ill+=("$name-service") && break; }
        echo
    done
done
[ ${#ill[@]} = 0 ] || stop "the traffic stays where it was, as these are not well: ${ill[*]}. Their logs say why." \
    "If the fault is with a service that serves now, and this build mends it: run it again with _CHECK=/health"

for name in "${SERVICES[@]}"; do
    gcloud run services update-traffic "$name-service" --quiet --project="$PROJECT_ID" --region="$REGION" --to-latest ||
        stop "$name-service and those after it in (${SERVICES[*]}) still serve the revision before: run the build again," \
            "or send the others back with gcloud run services update-traffic --to-revisions"
done
