#!/bin/sh
# Whether all that the source had written a moment ago lies here: the healthcheck of pg_receivewal in Compose and Kubernetes.
#
# Its role may open replication connections and no others (pg_hba.conf), and these can't ask whether the slot is active. They
# tell how far the source has written, and how far the slot was confirmed: with --synchronous, what is on this disk. A
# receiver without a connection shows with the next thing that the source writes; until then nothing is missing.
set -eu

ask() { psql -AXqtw --command="$1" replication=true; }
# A position in the WAL, such as 16/B374D848, in bytes.
bytes() { echo $((0x${1%/*} << 32 | 0x${1#*/})); }

written=$(bytes "$(ask IDENTIFY_SYSTEM | cut -d '|' -f 3)")
for _ in 1 2 3 4 5; do
    received=$(ask "READ_REPLICATION_SLOT $SLOT" | cut -d '|' -f 2)
    if [ -z "$received" ]; then
        echo "the source has no replication slot $SLOT that keeps WAL; a restart of this container makes it" >&2
        exit 1
    fi
    [ "$(bytes "$received")" -lt "$written" ] || exit 0
    sleep 1
done
echo "slot $SLOT stands at $received, and the source had written more 5 s ago; see pg_receivewal's own log" >&2
exit 1
