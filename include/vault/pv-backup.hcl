# What Airflow's workers may do in Vault, all of it: give them tokens without Vault's default policy. `update` and not
# `create`, because with `create` a misspelt key name would silently make a new key. docs/vault.md says how it is used.
# Not here: the access key of backup_user. An administrator reads it when a worker's environment is made.

# Wrap and unwrap the data keys of artefacts. Not read, rotate, export or delete their key.
path "transit/encrypt/pv-backup" {
  capabilities = ["update"]
}

path "transit/decrypt/pv-backup" {
  capabilities = ["update"]
}

# Sign the evidence of drills.
path "transit/sign/pv-backup-evidence" {
  capabilities = ["update"]
}

# What Airflow's VaultBackend serves.
path "kv/data/airflow/connections/pv_backup_*" {
  capabilities = ["read"]
}

path "kv/data/airflow/variables/pv_backup_*" {
  capabilities = ["read"]
}
