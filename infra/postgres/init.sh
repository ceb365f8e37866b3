#!/bin/sh
# Run once by the postgres image on an empty data directory: a role and a database a service, closed to the others.
set -eu
for service in auth policy credential-broker agent-runtime audit; do
    role=$(printf %s "$service" | tr - _)
    password=$(cat "/run/secrets/postgres-$service.password")
    psql -v ON_ERROR_STOP=1 -v role="$role" -v password="$password" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done
