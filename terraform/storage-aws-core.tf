# The bucket. Its public-access block and its 30 days are as they always were; new are the key and HTTPS.

locals {
  # No variable: the retention of 30 days is a constant of the backup, which alarms when a bucket keeps its objects
  # shorter or longer.
  retention_days = 30
}

resource "aws_s3_bucket" "backup" {
  #checkov:skip=CKV_AWS_18:who read is in CloudTrail's data events, of the account; a log bucket would be one more to guard
  #checkov:skip=CKV_AWS_144:a second region is the account's decision and doubles the cost; the source is a copy too
  #checkov:skip=CKV2_AWS_62:the journal and two watchdogs look at the bucket; events would tell nobody more
  bucket = var.bucket_name
  tags   = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "backup" {
  bucket = aws_s3_bucket.backup.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "backup" {
  #checkov:skip=CKV_AWS_300:pv_backup_reconciliation aborts a dead run's uploads within minutes and knows whose are alive
  bucket = aws_s3_bucket.backup.id

  rule {
    id     = "expire-after-${local.retention_days}-days"
    status = "Enabled"

    filter {}

    expiration {
      days = local.retention_days
    }

    # With versioning an expired object is only hidden: this is what deletes it.
    dynamic "noncurrent_version_expiration" {
      for_each = var.versioning_enabled ? [var.noncurrent_days] : []

      content {
        noncurrent_days = noncurrent_version_expiration.value
      }
    }
  }

  # S3 looks at the bucket's versioning when it takes a rule about versions.
  depends_on = [aws_s3_bucket_versioning.backup]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "backup" {
  bucket = aws_s3_bucket.backup.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.backup.arn
    }

    # One call to KMS for many objects: WAL makes thousands a day.
    bucket_key_enabled = true
  }
}

resource "aws_s3_bucket_policy" "backup" {
  bucket = aws_s3_bucket.backup.id

  policy = templatefile("${path.module}/policies/bucket.json.tftpl", {
    bucket_arn    = aws_s3_bucket.backup.arn
    kms_key_arn   = aws_kms_key.backup.arn
    kms_key_id    = aws_kms_key.backup.key_id
    kms_alias_arn = aws_kms_alias.backup.arn
    kms_alias     = aws_kms_alias.backup.name
  })

  # S3 refuses two changes of who may enter at the same moment.
  depends_on = [aws_s3_bucket_public_access_block.backup]
}

resource "aws_s3_bucket_versioning" "backup" {
  count = var.versioning_enabled ? 1 : 0

  bucket = aws_s3_bucket.backup.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "backup" {
  count = var.object_lock == null ? 0 : 1

  bucket = aws_s3_bucket.backup.id

  rule {
    default_retention {
      mode = var.object_lock.mode
      days = var.object_lock.days
    }
  }

  depends_on = [aws_s3_bucket_versioning.backup]
}
