# OpenBao of docker-compose.yaml. Two things are for a trial only: plain HTTP, on Compose's own network, and a seal that opens
# by itself, so that a restarted machine goes on. In production people or an HSM hold the key (docs/vault.md).
storage "raft" {
  path                   = "/openbao/file"
  node_id                = "vault"
  # The only node elects itself, in 2 s instead of 10.
  performance_multiplier = "1"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  # There is no other node that would have to reach it.
  cluster_address = "127.0.0.1:8201"
  tls_disable     = true
}

seal "static" {
  current_key_id = "compose-1"
  current_key    = "env://VAULT_SEAL_KEY"
}

api_addr          = "http://vault:8200"
cluster_addr      = "http://127.0.0.1:8201"
default_lease_ttl = "768h"
# The tokens of the S3 server and of the break-glass tool renew by being used, over years.
max_lease_ttl     = "87600h"
ui                = false
