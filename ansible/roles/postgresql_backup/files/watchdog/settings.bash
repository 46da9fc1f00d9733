# shellcheck shell=bash disable=SC2034 # the other files use what is set here
# The settings of pv-backup-watchdog: read, never sourced; each held against its rule, and every fault named at once.

# Name; default (- must be given, none may be left out); what it must look like; what it is.
readonly SETTINGS='
BUCKET - ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$ bucket of the backups
REGION - ^[a-z0-9-]+$ its region, such as eu-west-3
S3_ENDPOINT none ^https?://[^/@[:space:]]+$ URL of an S3 server that is not AWS
ZONE Europe/Paris ^[A-Za-z0-9_+/-]+$ time zone of the day that a backup is of
NOT_BEFORE 04:00 ^([01][0-9]|2[0-3]):[0-5][0-9]$ HH:MM in ZONE, by when the backup must be there
MIN_BYTES 512 ^[1-9][0-9]{0,15}$ a smaller object is no backup of yours
VAULT_ADDR - ^(https://[^/@[:space:]]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)$ URL of Vault; http:// on loopback only
VAULT_CACERT none ^/.+$ file of its CA, if the system does not know that
VAULT_APPROLE_MOUNT approle ^[A-Za-z0-9_/-]+$ where AppRole is mounted
VAULT_KV_MOUNT kv ^[A-Za-z0-9_/-]+$ where KV version 2 is mounted
ROLE_ID_FILE /etc/pv-backup/role_id ^/.+$ file of the role id of AppRole pv-backup-receiver
SECRET_ID_FILE /etc/pv-backup/secret_id ^/.+$ file of its secret id
MAIL_TO - ^[^@,[:space:]]+@[^@,[:space:]]+(,[^@,[:space:]]+@[^@,[:space:]]+)*$ addresses, with commas and no spaces between
MAIL_FROM - ^[^@,[:space:]]+@[^@,[:space:]]+$ address that mails come from
SMTP_URL smtp://127.0.0.1 ^smtps?://[^/@[:space:]]+$ mail server that wants no login; used unless Vault names one
TIMEOUT_S 30 ^[1-9][0-9]{0,2}$ seconds that each server has for an answer
STATE_DIRECTORY /run/pv-backup-watchdog ^/.+$ on tmpfs: the secrets that were good last, and what was told
'

list_settings() {
    local name default rule what
    while read -r name default rule what; do
        [[ ! $name ]] || printf '    %-19s %s (%s)\n' "$name" "$what" "${default/#-/must be given}"
    done <<<"$SETTINGS"
}

refuse() { # what is wrong, what to do
    echo "CONFIGURATION $1. Next: ${2:-see pv-backup-watchdog --help}" >&2
    exit 4
}

# Set a variable of its name for each setting, empty where it is not what it must be; FAULTS says all that is wrong.
read_settings() {
    local -A given=()
    local name default rule what text number=0
    FAULTS=''
    [[ -f $CONFIG && -r $CONFIG ]] || refuse "the settings cannot be read from $CONFIG"
    while IFS= read -r text || [[ $text ]]; do
        number=$((number + 1))
        if [[ $text =~ ^([A-Z0-9_]+)=(.*[^[:space:]])?[[:space:]]*$ && $SETTINGS == *$'\n'"${BASH_REMATCH[1]} "* ]]; then
            given[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
        elif [[ ! $text =~ ^[[:space:]]*(#|$) ]]; then
            FAULTS+="; line $number is no setting of this program"
        fi
    done <"$CONFIG"
    while read -r name default rule what; do
        [[ $name ]] || continue
        text=${given[$name]:-$default}
        if [[ $text == - ]]; then
            FAULTS+="; $name is missing ($what)"
            text=''
        elif [[ $text == none ]]; then
            text=''
        elif [[ ! $text =~ $rule ]]; then
            # Its value is not repeated: somebody may have put a password in it.
            FAULTS+="; $name is not what it must be ($what)"
            text=''
        fi
        printf -v "$name" '%s' "$text"
    done <<<"$SETTINGS"
    # Of a zone that it does not know, date makes UTC without a word.
    [[ -f ${TZDIR:-/usr/share/zoneinfo}/${ZONE:-UTC} ]] ||
        FAULTS+="; ZONE is not known here (correct it, or install tzdata)"
    FAULTS=${FAULTS:+$CONFIG${FAULTS/#;/:}}
}

# Below STATE_DIRECTORY nobody but us may write or read.
open_state() {
    if ! mkdir -p "$STATE_DIRECTORY" || [[ ! -O $STATE_DIRECTORY || -L $STATE_DIRECTORY ]] ||
        ! chmod 700 "$STATE_DIRECTORY" || ! WORK=$(mktemp -d "$STATE_DIRECTORY/work.XXXXXX"); then
        refuse "$CONFIG: STATE_DIRECTORY cannot be a directory of our own"
    fi
    trap 'rm -rf "$WORK"' EXIT
}
