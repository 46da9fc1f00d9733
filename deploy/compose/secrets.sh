#!/bin/sh
# Draws the secrets of docker-compose.yaml into .env, which Compose reads by itself and git ignores:
#
#   deploy/compose/secrets.sh
#
# Run it before the first `docker compose up`, and again after an update: what is there stays, what is new is added. The
# volumes remember the passwords, so whoever deletes .env deletes them too: docker compose down --volumes.
set -eu

cd "$(dirname "$0")/../.."
file=${1:-.env}
umask 077
touch "$file"
chmod 600 "$file"

# Letters, digits, - and _ only: safe in a URL, in JSON and in a shell.
token() { head -c "$1" /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '='; }
# 32 bytes with their padding, as Fernet and OpenBao's seal want them; Fernet in the alphabet of URLs.
key() { head -c 32 /dev/urandom | base64 -w 0; }
fernet() { key | tr '+/' '-_'; }

# Adds a variable unless it is there; in one write, so that an interrupted run leaves whole lines.
secret() {
    name=$1
    shift
    grep -q "^$name=" "$file" || printf '%s=%s\n' "$name" "$("$@")" >>"$file"
}

secret SECRET_POSTGRES_SUPERUSER token 24
secret SECRET_POSTGRES_AIRFLOW token 24
secret SECRET_POSTGRES_PV_BACKUP_OWNER token 24
secret SECRET_POSTGRES_PV_BACKUP_SERVICE token 24
secret SECRET_SOURCE_SUPERUSER token 24
secret SECRET_SOURCE_PV_BACKUP_DUMP token 24
secret SECRET_SOURCE_PV_BACKUP_RECEIVEWAL token 24
secret SECRET_REDIS token 24
secret SECRET_VAULT_SEAL_KEY key
secret SECRET_VAULT_ROLE_ID token 24
secret SECRET_VAULT_SECRET_ID token 24
secret SECRET_VAULT_BACKUP_TOKEN token 24
secret SECRET_VAULT_SSE_TOKEN token 24
secret SECRET_S3_ADMIN_ACCESS_KEY token 15
secret SECRET_S3_ADMIN_SECRET_KEY token 30
secret SECRET_S3_BACKUP_ACCESS_KEY token 15
secret SECRET_S3_BACKUP_SECRET_KEY token 30
secret SECRET_S3_WATCHDOG_ACCESS_KEY token 15
secret SECRET_S3_WATCHDOG_SECRET_KEY token 30
secret SECRET_AIRFLOW_FERNET fernet
secret SECRET_AIRFLOW_API_SECRET token 24
secret SECRET_AIRFLOW_JWT_SECRET token 64
secret SECRET_AIRFLOW_UI_PASSWORD token 12
