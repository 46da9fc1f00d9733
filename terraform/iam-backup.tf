# Users, because the machines stand at OVH, where no instance role exists. backup_user writes and reads backups, and every worker
# has its key, the one that ships WAL too; backup_watchdog only looks whether they are there, and its key by itself can write
# none. What each may, and why: policies/README.md.

locals {
  # Each user, and where in Vault its access key goes.
  machine_users = {
    backup_user     = "ci/aws-backup"
    backup_watchdog = "ci/aws-backup-watchdog"
  }
}

resource "aws_iam_user" "machine" {
  #checkov:skip=CKV_AWS_273:SSO is for people; these are machines outside AWS, which no role can reach
  for_each = local.machine_users

  name = each.key
  tags = var.tags
}

resource "aws_iam_policy" "machine" {
  for_each = local.machine_users

  name        = each.key
  description = "PV backup: all that ${each.key} may do"
  tags        = var.tags

  policy = templatefile("${path.module}/policies/${each.key}.json.tftpl", {
    bucket_arn  = aws_s3_bucket.backup.arn
    kms_key_arn = aws_kms_key.backup.arn
  })
}

resource "aws_iam_user_policy_attachment" "machine" {
  #checkov:skip=CKV_AWS_40:a group would have one member each, and whoever joined it could read or write backups
  for_each = local.machine_users

  user       = aws_iam_user.machine[each.key].name
  policy_arn = aws_iam_policy.machine[each.key].arn
}

resource "aws_iam_access_key" "machine" {
  for_each = local.machine_users

  user = aws_iam_user.machine[each.key].name

  lifecycle {
    # A new key is in Vault before the old one ends.
    create_before_destroy = true
  }
}

resource "vault_kv_secret_v2" "access_key" {
  for_each = local.machine_users

  mount = var.vault_kv_mount
  name  = each.value

  data_json_wo = jsonencode({
    access_key_id     = aws_iam_access_key.machine[each.key].id
    secret_access_key = aws_iam_access_key.machine[each.key].secret
  })
  # What is write-only can't be compared. The moment when the key was made grows with each new key.
  data_json_wo_version = parseint(formatdate("YYYYMMDDhhmmss", aws_iam_access_key.machine[each.key].create_date), 10)
}
