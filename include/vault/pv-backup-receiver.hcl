# What the host of pg_receivewal and of the cron watchdog may do in Vault, all of it: read its own secrets. It gets no key
# and no access key that writes: who holds this host can neither open a backup nor replace one.

# The connection string of pg_receivewal.
path "kv/data/pv-backup/receivewal" {
  capabilities = ["read"]
}

# Where the watchdog's alarm goes.
path "kv/data/pv-backup/watchdog" {
  capabilities = ["read"]
}

# The access key of the IAM user backup_watchdog, which may only read.
path "kv/data/ci/aws-backup-watchdog" {
  capabilities = ["read"]
}
