#!/usr/bin/env bash
# deploy.sh NAME: a new revision of one service, with this build's image. It gets no traffic, but a URL of its own for
# promote.sh to ask; only where nothing serves yet, Cloud Run gives it the traffic at once.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/names.sh
. deploy/names.sh

name=$1
service=$name-service

[ -n "$SUPABASE_URL" ] || stop "_SUPABASE_URL is not set: give it to gcloud builds submit by --substitutions"
[ -n "$FRONTEND_URL" ] || stop "_FRONTEND_URL is not set: the origin of the pages that call"

# What all five have in common. Logs, the outbox and reports go on after an answer: so the CPU does.
callers=$(account user),$(account video),$(account storage),$(account usage),$(account scheduler)
settings=(
    "FRONTEND_URL=$FRONTEND_URL"
    "GOOGLE_CLOUD_PROJECT=$PROJECT_ID"
    "SUPABASE_URL=$SUPABASE_URL"
    "SERVICE_URL=$(url "$name")"
    "INTERNAL_CALLERS=$callers"
)
secrets=JWT_SECRET=short-video-jwt-secret:latest,SUPABASE_KEY=short-video-supabase-key:latest
[ -z "$PREVIOUS_JWT_SECRET" ] || secrets+=,JWT_SECRET_PREVIOUS=short-video-jwt-secret:$PREVIOUS_JWT_SECRET
memory=512Mi concurrency=80 timeout=60
probe=httpGet.path=/health,httpGet.port=8080,timeoutSeconds=3
protocol=(--no-use-http2 "--liveness-probe=$probe,periodSeconds=10,failureThreshold=6")

# Where a body is larger than the 32 MiB that Cloud Run lets through over HTTP/1. Its HTTP probes speak HTTP/1 alone.
takes_large_bodies() {
    settings+=("HTTP2=true")
    concurrency=40 timeout=900 # an upload lasts as long as a slow phone needs
    probe=tcpSocket.port=8080,timeoutSeconds=3
    protocol=(--use-http2 "--liveness-probe=")
}

asks() { # NAME …
    local peer
    for peer in "$@"; do
        settings+=("${peer^^}_SERVICE_URL=$(url "$peer")")
    done
}

case $name in
    logging) ;;
    user)
        asks logging
        settings+=("TOKEN_SECONDS=$TOKEN_SECONDS")
        ;;
    usage)
        asks logging
        settings+=("DAILY_BANDWIDTH_MB=$DAILY_BANDWIDTH_MB")
        ;;
    storage)
        memory=1Gi timeout=300 # two judges at once, each of 256 MB at most; a video is looked at within a request
        asks video usage logging
        settings+=("GCS_BUCKET=${BUCKET:-$PROJECT_ID-short-videos}" "MAX_STORAGE_MB=$MAX_STORAGE_MB")
        ;;
    video)
        takes_large_bodies
        asks user storage usage logging
        settings+=("STORAGE_PUBLIC_URL=$(url storage)" "MAX_UPLOAD_MB=$MAX_UPLOAD_MB")
        ;;
    *) stop "there is no $service" ;;
esac

serving=$(gcloud run services list --project="$PROJECT_ID" --region="$REGION" \
    --filter="metadata.name=$service" --format="value(status.latestReadyRevisionName)")
traffic=(--no-traffic)
[ -n "$serving" ] || traffic=()

# ^|^: values have commas. Browsers call all five, with a token of ours: so Cloud Run checks nobody.
gcloud run deploy "$service" --quiet --project="$PROJECT_ID" --region="$REGION" \
    --image="$(image "$name"):$TAG" --tag=candidate "${traffic[@]}" \
    --service-account="$(account "$name")" --no-invoker-iam-check --ingress=all \
    --set-env-vars="^|^$(IFS='|' && echo "${settings[*]}")" --set-secrets="$secrets" \
    --execution-environment=gen2 --cpu=1 --memory="$memory" --no-cpu-throttling --cpu-boost \
    --concurrency="$concurrency" --min="$MIN_INSTANCES" --max-instances="$MAX_INSTANCES" --timeout="$timeout" \
    --port=8080 "${protocol[@]}" --startup-probe="$probe,periodSeconds=3,failureThreshold=20"
