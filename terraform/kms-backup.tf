# The key of the bucket's server-side encryption, and of nothing else. It is the second lock: the artefacts are sealed with
# keys from Vault before S3 sees them.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

resource "aws_kms_key" "backup" {
  description             = "PV backup: server-side encryption of the bucket ${var.bucket_name}"
  key_usage               = "ENCRYPT_DECRYPT"
  enable_key_rotation     = true
  deletion_window_in_days = var.kms_deletion_window_days
  tags                    = var.tags

  policy = templatefile("${path.module}/policies/key.json.tftpl", {
    account_arn         = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"
    backup_user_arn     = aws_iam_user.machine["backup_user"].arn
    backup_watchdog_arn = aws_iam_user.machine["backup_watchdog"].arn
  })

  lifecycle {
    # Without this key every object in the bucket is noise.
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "backup" {
  name          = "alias/pv-backup"
  target_key_id = aws_kms_key.backup.key_id
}
