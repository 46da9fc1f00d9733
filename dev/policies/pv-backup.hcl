# What the backup may do in Vault: wrap and unwrap data keys, and sign the evidence of drills. Not read, rotate, export or
# delete either key.
path "transit/encrypt/pv-backup" {
  capabilities = ["update"]
}

path "transit/decrypt/pv-backup" {
  capabilities = ["update"]
}

path "transit/sign/pv-backup-evidence" {
  capabilities = ["update"]
}
