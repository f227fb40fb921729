#!/bin/sh
# Every migration, in order, each as one transaction. They may be applied again, so every build applies all of them.
set -eu
cd "$(dirname "$0")/.."
export PGOPTIONS=--client-min-messages=warning

for migration in supabase/migrations/*.sql; do
    echo "$migration"
    psql "$DATABASE_URL" --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction --file "$migration" || {
        echo "migrate.sh: $migration was not applied; no service was touched" >&2
        exit 1
    }
done
