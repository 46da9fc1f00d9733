# What the backup may do in Vault: wrap and unwrap data keys. Not read, rotate, export or delete the key that wraps them.
path "transit/encrypt/pv-backup" {
  capabilities = ["update"]
}

path "transit/decrypt/pv-backup" {
  capabilities = ["update"]
}
