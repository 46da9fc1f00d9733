# shellcheck shell=bash disable=SC2154 # settings.bash sets what is in capitals
# The secrets of pv-backup-watchdog: from Vault at each run, or its last good answer where it gives none.

declare -A SECRET=(
    [access_key_id]='' [secret_access_key]='' [webhook_url]='' [smtp_url]='' [smtp_user]='' [smtp_password]=''
)
VAULT_TROUBLE=''

# Ask Vault; further lines are of curl's configuration. The answer is in memory only.
ask_vault() { # path, line …
    local path=$1 said
    said=$({
        line url "$VAULT_ADDR/v1/$path"
        [[ ! $VAULT_CACERT ]] || line cacert "$VAULT_CACERT"
        printf '%s\n' "${@:2}"
    } | ask --write-out '\n%{http_code}')
    ANSWER=${said%$'\n'*} STATUS=${said##*$'\n'}
    case $STATUS in
        200) return 0 ;;
        000) VAULT_TROUBLE="Vault at $VAULT_ADDR does not answer ($(last_error))" ;;
        503) VAULT_TROUBLE="Vault at $VAULT_ADDR is sealed" ;;
        *) VAULT_TROUBLE="Vault at $VAULT_ADDR refuses $path (HTTP status $STATUS$(
            printf '%s' "$ANSWER" | jq -r '.errors[]? | ", \(.)"' 2>/dev/null | tr -d '\n' | head -c 300
        ))" ;;
    esac
    return 1
}

fetch_secrets() {
    local file login token key
    for file in "$ROLE_ID_FILE" "$SECRET_ID_FILE"; do
        VAULT_TROUBLE="Vault cannot be asked: $file is empty or cannot be read"
        [[ -r $file && -s $file ]] || return
    done
    login=$(printf '%s\n' "$(<"$ROLE_ID_FILE")" "$(<"$SECRET_ID_FILE")" | jq -cnR '{role_id: input, secret_id: input}')
    ask_vault "auth/$VAULT_APPROLE_MOUNT/login" "$(line data "$login")" || return
    token=$(line header "X-Vault-Token: $(printf '%s' "$ANSWER" | jq -r .auth.client_token)")
    ask_vault "$VAULT_KV_MOUNT/data/ci/aws-backup-watchdog" "$token" || return
    key=$ANSWER
    ask_vault "$VAULT_KV_MOUNT/data/pv-backup/watchdog" "$token" || [[ $STATUS == 404 ]] || return
    SECRETS=$(printf '%s\n' "$key" "$ANSWER" | jq -cs 'map(.data.data // {}) | add')
    VAULT_TROUBLE="Vault has no access_key_id, or no secret_access_key, at $VAULT_KV_MOUNT/ci/aws-backup-watchdog"
    [[ $(printf '%s' "$SECRETS" | jq '.access_key_id and .secret_access_key') == true ]] && VAULT_TROUBLE=''
}

# Vault is away when backups fail, and what it said last opens the bucket still. Never kept on a disk: there it would stay.
learn_secrets() {
    local kept=$STATE_DIRECTORY/secrets.json name
    if fetch_secrets; then
        if [[ $(stat -f -c %T "$STATE_DIRECTORY") == @(tmpfs|ramfs) ]]; then
            printf '%s' "$SECRETS" >"$kept.new" && mv "$kept.new" "$kept"
        else
            echo "what Vault says is not kept for the time when it is away: STATE_DIRECTORY is not on tmpfs" >&2
        fi
    elif [[ -s $kept ]]; then
        SECRETS=$(<"$kept")
        VAULT_TROUBLE+=", so what it said at $(date -u -r "$kept" +%FT%TZ) was used"
    else
        return 1
    fi
    for name in "${!SECRET[@]}"; do
        SECRET[$name]=$(printf '%s' "$SECRETS" | jq -r --arg name "$name" '.[$name] // ""')
    done
}
