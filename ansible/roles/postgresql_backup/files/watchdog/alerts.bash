# shellcheck shell=bash disable=SC2154 # settings.bash sets what is in capitals
# How pv-backup-watchdog tells people: by mail and by webhook, each finding once a day.

# A line of curl's configuration. It reads that from a pipe: no process list and no disk has what is secret in it.
line() { # option, value
    local value=${2//[$'\r\n']/}
    value=${value//\\/\\\\}
    printf '%s = "%s"\n' "$1" "${value//\"/\\\"}"
}

# curl with its configuration on standard input, root's own .curlrc left out.
ask() {
    curl --disable --silent --show-error --globoff --connect-timeout "$TIMEOUT_S" --max-time "$TIMEOUT_S" --config - \
        "$@" 2>"$WORK/error"
}

# What curl or the AWS CLI said last; curl goes on with lines of advice.
last_error() {
    { grep '^curl: (' "$WORK/error" || cat "$WORK/error"; } | tail -n 1 | tr -d '\r' | head -c 300
}

by_mail() {
    local address server=${SECRET[smtp_url]:-$SMTP_URL}
    # The path is our name in the greeting; without one, curl would take the file's.
    [[ $server == *://*/?* ]] || server=${server%/}/$HOSTNAME
    printf '%s\n' "From: $MAIL_FROM" "To: ${MAIL_TO//,/, }" "Subject: [pv-backup] $HEAD" "Date: $(date -R)" \
        "Message-ID: <$(date +%s).$$@$HOSTNAME>" "Auto-Submitted: auto-generated" "MIME-Version: 1.0" \
        "Content-Type: text/plain; charset=utf-8" "Content-Transfer-Encoding: 8bit" "" "$TEXT" >"$WORK/mail"
    {
        line url "$server"
        line mail-from "$MAIL_FROM"
        for address in ${MAIL_TO//,/ }; do line mail-rcpt "$address"; done
        if [[ ${SECRET[smtp_user]} ]]; then
            line user "${SECRET[smtp_user]}:${SECRET[smtp_password]}"
            echo ssl-reqd
        fi
    } | ask --crlf --upload-file "$WORK/mail" && return
    echo "no mail: $(last_error). Next: look at SMTP_URL, and in Vault at $VAULT_KV_MOUNT/pv-backup/watchdog" >&2
    return 1
}

by_webhook() { # level, code, cause, next step
    local status
    # Slack reads &, < and > of the text as markup.
    jq -n --arg text "$TEXT" --arg level "$1" --arg code "$2" --arg day "$DAY" --arg host "$HOSTNAME" \
        --arg cause "$3" --arg next_step "$4" \
        '{text: ($text | gsub("&"; "&amp;") | gsub("<"; "&lt;") | gsub(">"; "&gt;")),
          $level, $code, $day, $host, $cause, $next_step}' >"$WORK/alert"
    status=$(line url "${SECRET[webhook_url]}" | ask --header "Content-Type: application/json" \
        --data-binary "@$WORK/alert" --output /dev/null --write-out '%{http_code}')
    [[ $status == 2?? ]] && return
    # Neither the address nor what was answered: both may quote the path, which is the secret.
    echo "no webhook: HTTP status $status. Next: look at webhook_url in Vault at $VAULT_KV_MOUNT/pv-backup/watchdog" >&2
    return 1
}

# Tell people by each way that has not told them of this today; fails when nobody knows in the end.
tell() { # level, code, finding, cause, next step
    local way told known=''
    HEAD="${1^^} $2 cron@$HOSTNAME $DAY"
    TEXT="$HEAD"$'\n'"$4"$'\n'"Next: $5"
    for way in mail ${SECRET[webhook_url]:+webhook}; do
        told=$STATE_DIRECTORY/told.$way
        if [[ -f $told && $(<"$told") == "$DAY $3" ]] || "by_$way" "$1" "$2" "$4" "$5"; then
            known=yes
            echo "$DAY $3" >"$told"
        fi
    done
    [[ $known ]]
}

# Say what was found, tell people, and end.
conclude() { # exit status, level, code, finding, cause, next step
    local cause=$5
    [[ ! $VAULT_TROUBLE || $3 == ERR-47-02 ]] || cause+="; besides, $VAULT_TROUBLE"
    echo "$3 $cause. Next: $6" >&2
    if [[ $ALERTING ]] && ! tell "$2" "$3" "$4" "$cause" "$6"; then
        echo "nobody was told" >&2
        exit 5
    fi
    exit "$1"
}
