output "pv_backup" {
  description = "What the workers' settings and Vault's readers need; no secret is in it."
  value = {
    PV_BACKUP_BUCKET     = module.pv_backup.bucket_name
    PV_BACKUP_KMS_KEY_ID = module.pv_backup.kms_key_arn
    access_keys_in_vault = module.pv_backup.vault_secrets
  }
}
