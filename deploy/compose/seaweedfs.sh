#!/bin/sh
# Starts the S3 server of docker-compose.yaml: an administrator, and production's two users with their policies of production.
#
# Its configuration holds keys, so it is written here, from the environment, to memory. Users made by its IAM API would
# draw keys of their own, and who uses them must know them before it starts.
set -eu

# A user's policy as a JSON string: the template's two names filled in, quotes escaped, on one line.
policy() {
    sed -e "s|\${bucket_arn}|arn:aws:s3:::$BUCKET|g" -e "s|\${kms_key_arn}|*|g" -e 's|["\\]|\\&|g' \
        "/etc/pv-backup/policies/$1.json.tftpl" | tr '\n' ' '
}

umask 077
cat >/run/pv-backup/s3.json <<EOF
{
  "identities": [
    {
      "name": "admin",
      "credentials": [{"accessKey": "$ADMIN_ACCESS_KEY", "secretKey": "$ADMIN_SECRET_KEY"}],
      "actions": ["Admin", "Read", "Write", "List", "Tagging"]
    },
    {
      "name": "backup_user",
      "credentials": [{"accessKey": "$BACKUP_ACCESS_KEY", "secretKey": "$BACKUP_SECRET_KEY"}],
      "policyNames": ["backup_user"]
    },
    {
      "name": "backup_watchdog",
      "credentials": [{"accessKey": "$WATCHDOG_ACCESS_KEY", "secretKey": "$WATCHDOG_SECRET_KEY"}],
      "policyNames": ["backup_watchdog"]
    }
  ],
  "policies": [
    {"name": "backup_user", "content": "$(policy backup_user)"},
    {"name": "backup_watchdog", "content": "$(policy backup_watchdog)"}
  ],
  "kms": {
    "default_provider": "openbao",
    "providers": {
      "openbao": {"type": "openbao", "address": "$VAULT_ADDR", "token": "$VAULT_SSE_TOKEN", "transit_path": "transit"}
    }
  }
}
EOF

# Master, volume server and filer serve this container alone; the S3 gateway is for the others.
exec weed -logtostderr=true server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -s3 -s3.config=/run/pv-backup/s3.json -s3.ip.bind=0.0.0.0 -s3.port=8333 \
    -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false \
    -master.telemetry=false -master.electionTimeout=1s -master.volumeSizeLimitMB=1024 \
    -volume.max=0 -volume.preStopSeconds=0 "$@"
