#!/usr/bin/env bash
# What a project needs before its first build, once for all; run again, it adds what is missing and changes nothing else.
#   PROJECT=my-project REGION=europe-west3 BUCKET=my-short-videos deploy/prepare.sh
# SUPABASE_KEY and DATABASE_URL are taken from the environment, or asked for; they are not printed, nor is JWT_SECRET.
# It keeps to what the bash of macOS knows.
set -euo pipefail
cd "$(dirname "$0")/.."

PROJECT_ID=${PROJECT:-}
REGION=${REGION:-europe-west3}
BUCKET=${BUCKET:-$PROJECT_ID-short-videos}
SWEEP_SCHEDULE=${SWEEP_SCHEDULE:-*/30 * * * *}
RETRY_SECONDS=${RETRY_SECONDS:-5}
# shellcheck source=deploy/names.sh
. deploy/names.sh

there() { # COMMAND …: whether that is there
    "$@" --project="$PROJECT_ID" >/dev/null 2>&1
}

say() {
    echo "prepare: $*"
}

grant() { # ROLE ACCOUNT COMMAND …: an account that was just made is not known everywhere at once
    local try
    for try in 1 2 3 4 5 6; do
        "${@:3}" --project="$PROJECT_ID" --role="$1" --member="serviceAccount:$2" --quiet >/dev/null && return
        [ "$try" = 6 ] || sleep "$RETRY_SECONDS"
    done
    stop "$2 could not be given $1: gcloud's lines above say why; then run this again"
}

make_account() { # NAME DESCRIPTION
    there gcloud iam service-accounts describe "$(account "$1")" ||
        gcloud iam service-accounts create "short-video-$1" --project="$PROJECT_ID" --display-name="short-video: $2"
}

has_version() { # SECRET
    [ -n "$(gcloud secrets versions list "$1" --project="$PROJECT_ID" --filter=state=enabled --limit=1 --format='value(name)')" ]
}

make_secret() { # SECRET COMMAND …, which prints the value; one that is there is left alone
    local secret=$1
    there gcloud secrets describe "$secret" ||
        gcloud secrets create "$secret" --project="$PROJECT_ID" --replication-policy=automatic
    if has_version "$secret"; then
        say "$secret is there and stays; for another value: gcloud secrets versions add $secret --data-file=-"
    else
        local value
        value=$("${@:2}") # before anything is added, lest nothing is
        printf %s "$value" | gcloud secrets versions add "$secret" --project="$PROJECT_ID" --data-file=-
    fi
}

random() {
    head -c 48 /dev/urandom | base64 | tr -d '\n'
}

given() { # VARIABLE DESCRIPTION: its value, or what a person types, without a line's end
    local value=${!1:-}
    if [ -z "$value" ] && [ -t 0 ]; then
        read -rsp "$1, $2: " value
        echo >&2
    fi
    [ -n "$value" ] || stop "$1 is missing: set it in the environment ($2) and run this again"
    printf %s "$value"
}

may_read() { # SECRET ACCOUNT
    grant roles/secretmanager.secretAccessor "$2" gcloud secrets add-iam-policy-binding "$1"
}

[ -n "$PROJECT_ID" ] || stop "PROJECT is missing: PROJECT=my-project ${0##*/}"
PROJECT_NUMBER=$(gcloud projects describe "$PROJECT_ID" --format='value(projectNumber)') ||
    stop "the project $PROJECT_ID cannot be read: is its name right, and did you run gcloud auth login?"

say "what of Google is used"
gcloud services enable --project="$PROJECT_ID" run.googleapis.com cloudbuild.googleapis.com \
    artifactregistry.googleapis.com secretmanager.googleapis.com cloudscheduler.googleapis.com iam.googleapis.com \
    iamcredentials.googleapis.com storage.googleapis.com logging.googleapis.com ||
    stop "the APIs could not be enabled: does the project have a billing account, and you the role Owner?"

say "images, in $REPOSITORY"
there gcloud artifacts repositories describe "$REPOSITORY" --location="$REGION" ||
    gcloud artifacts repositories create "$REPOSITORY" --project="$PROJECT_ID" --location="$REGION" \
        --repository-format=docker --description="The images of short-video"
gcloud artifacts repositories set-cleanup-policies "$REPOSITORY" --project="$PROJECT_ID" --location="$REGION" \
    --policy=deploy/cleanup.json --no-dry-run >/dev/null

say "videos, in gs://$BUCKET; sources of builds, in gs://${PROJECT_ID}_cloudbuild"
there gcloud storage buckets describe "gs://$BUCKET" ||
    gcloud storage buckets create "gs://$BUCKET" --project="$PROJECT_ID" --location="$REGION" \
        --uniform-bucket-level-access --public-access-prevention ||
    stop "gs://$BUCKET could not be made: a bucket's name is one in the whole world, so try another BUCKET"
gcloud storage buckets update "gs://$BUCKET" --project="$PROJECT_ID" --clear-soft-delete \
    --cors-file=storage-service/bucket/cors.json --lifecycle-file=storage-service/bucket/lifecycle.json
there gcloud storage buckets describe "gs://${PROJECT_ID}_cloudbuild" ||
    gcloud storage buckets create "gs://${PROJECT_ID}_cloudbuild" --project="$PROJECT_ID" --location="$REGION" \
        --uniform-bucket-level-access --public-access-prevention

say "secrets"
make_secret short-video-jwt-secret random
make_secret short-video-supabase-key given SUPABASE_KEY "the project's secret or service_role key"
make_secret short-video-database-url given DATABASE_URL "the connection string of Supabase's session pooler"

say "accounts, each with the least that it needs"
make_account build "builds and deploys"
make_account scheduler "sweeps"
for name in "${SERVICES[@]}"; do
    make_account "$name" "$name-service"
    may_read short-video-jwt-secret "$(account "$name")"
    may_read short-video-supabase-key "$(account "$name")"
    # To deploy a service is to act as its account.
    grant roles/iam.serviceAccountUser "$(account build)" \
        gcloud iam service-accounts add-iam-policy-binding "$(account "$name")"
done
grant roles/storage.objectUser "$(account storage)" gcloud storage buckets add-iam-policy-binding "gs://$BUCKET"
# It signs URLs without a key file, as itself.
grant roles/iam.serviceAccountTokenCreator "$(account storage)" \
    gcloud iam service-accounts add-iam-policy-binding "$(account storage)"
may_read short-video-database-url "$(account build)"
grant roles/storage.objectViewer "$(account build)" \
    gcloud storage buckets add-iam-policy-binding "gs://${PROJECT_ID}_cloudbuild"
grant roles/artifactregistry.writer "$(account build)" \
    gcloud artifacts repositories add-iam-policy-binding "$REPOSITORY" --location="$REGION"
# Admin, as it also opens the services to browsers.
for role in roles/run.admin roles/logging.logWriter; do
    grant "$role" "$(account build)" gcloud projects add-iam-policy-binding "$PROJECT_ID" --condition=None
done

say "the sweeps of Cloud Scheduler"
for name in "${SWEEPERS[@]}"; do
    job=short-video-sweep-$name
    action=create
    ! there gcloud scheduler jobs describe "$job" --location="$REGION" || action=update
    gcloud scheduler jobs "$action" http "$job" --project="$PROJECT_ID" --location="$REGION" \
        --schedule="$SWEEP_SCHEDULE" --uri="$(url "$name")/internal/sweep" --http-method=POST --attempt-deadline=60s \
        --oidc-service-account-email="$(account scheduler)" --oidc-token-audience="$(url "$name")" >/dev/null ||
        stop "$job could not be made: is Cloud Scheduler offered in $REGION?"
done

cat <<END
prepare: all is there. Now build and deploy:

  gcloud builds submit --project=$PROJECT_ID --substitutions="^;^COMMIT_SHA=\$(git rev-parse HEAD);_REGION=$REGION;_BUCKET=$BUCKET;_SUPABASE_URL=https://…;_FRONTEND_URL=https://…"

The frontend finds the services at:

$(for name in "${SERVICES[@]}"; do echo "  NEXT_PUBLIC_$(echo "$name" | tr '[:lower:]' '[:upper:]')_SERVICE_URL=$(url "$name")"; done)
END
