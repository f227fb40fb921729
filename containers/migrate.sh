#!/bin/sh
# All migrations in their order, each in one transaction, and the role that PostgREST signs in as. It may run again.
set -eu
export PGOPTIONS='--client-min-messages=warning'
apply() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction --file "$1"
}
for migration in /migrations/*.sql; do
    apply "$migration"
done
apply /authenticator.sql
