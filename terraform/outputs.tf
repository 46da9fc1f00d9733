output "bucket_name" {
  description = "PV_BACKUP_BUCKET of the workers."
  value       = aws_s3_bucket.backup.id
}

output "bucket_arn" {
  description = "The bucket, for policies elsewhere."
  value       = aws_s3_bucket.backup.arn
}

output "kms_key_arn" {
  description = "PV_BACKUP_KMS_KEY_ID of the workers."
  value       = aws_kms_key.backup.arn
}

output "kms_alias" {
  description = "The key's name for people."
  value       = aws_kms_alias.backup.name
}

output "user_arns" {
  description = "The two IAM users, by name."
  value       = { for name, user in aws_iam_user.machine : name => user.arn }
}

output "vault_secrets" {
  description = "Where in Vault the access key of each user is, as `vault kv get` wants it. The keys themselves are no output."
  value       = { for name, path in local.machine_users : name => "${var.vault_kv_mount}/${path}" }
}
