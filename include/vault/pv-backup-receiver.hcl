# What pg_receivewal and the cron watchdog may do in Vault, all of it: read their own secrets. Neither a key nor an access
# key that writes is among them, so by these alone nobody opens a backup or replaces one. The WAL worker on the same host
# has the policy pv-backup and the key of backup_user in its environment: who reads that has a worker's rights.

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
