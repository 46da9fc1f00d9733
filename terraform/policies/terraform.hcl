# Whoever applies this module. Its provider asks who it is, makes itself a token that lives for 20 minutes, and with that writes
# the two access keys and looks at them again: at the secret, and at its metadata too.

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/create" {
  capabilities = ["update"]
}

path "kv/data/ci/aws-backup" {
  capabilities = ["create", "read", "update", "delete"]
}

path "kv/metadata/ci/aws-backup" {
  capabilities = ["read"]
}

path "kv/data/ci/aws-backup-watchdog" {
  capabilities = ["create", "read", "update", "delete"]
}

path "kv/metadata/ci/aws-backup-watchdog" {
  capabilities = ["read"]
}
