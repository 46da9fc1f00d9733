# What the S3 server may do in Vault: SSE-KMS with its own key, which is not the backup's.
path "transit/keys/pv-backup-sse" {
  capabilities = ["read"]
}

path "transit/datakey/plaintext/pv-backup-sse" {
  capabilities = ["update"]
}

path "transit/encrypt/pv-backup-sse" {
  capabilities = ["update"]
}

path "transit/decrypt/pv-backup-sse" {
  capabilities = ["update"]
}
