#!/bin/sh
# Runs pg_receivewal in Compose and Kubernetes. The environment has libpq's variables, SLOT and WAL_DIRECTORY.
set -eu

ask() { psql -AXqtw --command="$1" replication=true; }
# A slot that pg_receivewal makes (--create-slot) keeps WAL from its first connection on; this one at once.
ask "READ_REPLICATION_SLOT $SLOT" | grep -q ^physical || ask "CREATE_REPLICATION_SLOT $SLOT PHYSICAL (RESERVE_WAL)"

# A new segment is filled with zeros before WAL goes in. One that a power cut or a full disk left shorter holds no WAL, and
# pg_receivewal would refuse to go on for as long as it is there.
for segment in "$WAL_DIRECTORY"/*.partial; do
    [ -e "$segment" ] || continue
    if [ "$(tr -d '\0' <"$segment" | head -c 1 | wc -c)" -eq 0 ]; then rm -v "$segment"; fi
done

exec pg_receivewal --directory="$WAL_DIRECTORY" --slot="$SLOT" --synchronous --no-password --verbose
