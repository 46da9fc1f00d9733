# shellcheck shell=bash disable=SC2154,SC2034 # settings.bash sets what is in capitals; the program reads SIZE and TAG
# How pv-backup-watchdog asks S3, by curl or by the AWS CLI.

# STATUS is 200, or 404 where there is no such object; all else ends the run. GET leaves the object in $WORK/answer,
# HEAD leaves its SIZE and TAG.
look() { # GET or HEAD, key
    local what need="whose user needs s3:GetObject, s3:ListBucket and kms:Decrypt"
    S3_CODE=''
    [[ $1 == GET ]] || SIZE='' TAG=''
    "look_by_$USING" "$1" "$2"
    [[ $STATUS == 200 || ($STATUS == 404 && $S3_CODE != NoSuchBucket) ]] && return
    what="S3 refuses to show $2 (${S3_CODE:-HTTP status $STATUS})"
    [[ $STATUS != 000 ]] || what="S3 does not answer ($(last_error))"
    conclude 3 critical ERR-47-03 "S3 $STATUS $S3_CODE" \
        "whether $BUCKET has the backup of $DAY could not be seen: $what" \
        "look at S3, network, BUCKET, REGION, and in Vault at the key $VAULT_KV_MOUNT/ci/aws-backup-watchdog, $need"
}

# The path names the bucket, as in the backup's own requests: a host's name with the bucket's dots fits no certificate.
look_by_curl() {
    local head=() text
    [[ $1 == GET ]] || head=(--head)
    STATUS=$({
        line url "${S3_ENDPOINT:-https://s3.$REGION.amazonaws.com}/$BUCKET/$2"
        line user "${SECRET[access_key_id]}:${SECRET[secret_access_key]}"
    } | ask --aws-sigv4 "aws:amz:$REGION:s3" --retry 2 --retry-connrefused "${head[@]}" \
        --output "$WORK/answer" --write-out '%{http_code}')
    [[ $STATUS != 000 && $STATUS$1 != 200GET ]] || return
    while IFS= read -r text || [[ $text ]]; do
        [[ ! $text =~ \<Code\>([A-Za-z0-9]+) ]] || S3_CODE=${BASH_REMATCH[1]}
        [[ $1 == GET || ! ${text,,} =~ ^content-length:\ ([0-9]+) ]] || SIZE=${BASH_REMATCH[1]}
        [[ $1 == GET || ! ${text,,} =~ ^x-amz-meta-auth_tag:\ ([0-9a-f]+) ]] || TAG=${BASH_REMATCH[1]}
    done <"$WORK/answer"
}

look_by_aws() {
    local body=()
    [[ $1 == HEAD ]] || body=("$WORK/answer")
    printf '[default]\ns3 =\n  addressing_style = path\n' >"$WORK/aws"
    if AWS_CONFIG_FILE=$WORK/aws AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=3 \
        AWS_ACCESS_KEY_ID=${SECRET[access_key_id]} AWS_SECRET_ACCESS_KEY=${SECRET[secret_access_key]} \
        aws s3api "${1,,}-object" --bucket "$BUCKET" --key "$2" "${body[@]}" --region "$REGION" --output json \
        ${S3_ENDPOINT:+--endpoint-url "$S3_ENDPOINT"} --cli-connect-timeout "$TIMEOUT_S" \
        --cli-read-timeout "$TIMEOUT_S" >"$WORK/described" 2>"$WORK/error"; then
        STATUS=200
        [[ $1 == GET ]] || read -r SIZE TAG < <(jq -r '"\(.ContentLength) \(.Metadata.auth_tag)"' "$WORK/described")
        return
    fi
    [[ ! $(last_error) =~ occurred\ \(([A-Za-z0-9]+)\) ]] || S3_CODE=${BASH_REMATCH[1]}
    case $S3_CODE in
        404 | NoSuchKey | NoSuchBucket) STATUS=404 ;;
        '') STATUS=000 ;;
        *) STATUS=$S3_CODE ;;
    esac
}
