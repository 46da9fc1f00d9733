variable "bucket_name" {
  description = "Name of the bucket that holds the backups and nothing else; PV_BACKUP_BUCKET of the workers."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name: 3 to 63 lower-case letters, digits and hyphens, no dot (it breaks TLS). Give the existing bucket's name or a new one of that form."
  }
}

variable "kms_deletion_window_days" {
  description = "Days between the order to delete the key and its end. In them the order can be taken back; after them every backup is lost."
  type        = number
  default     = 30

  validation {
    condition     = var.kms_deletion_window_days >= 14 && var.kms_deletion_window_days <= 30
    error_message = "kms_deletion_window_days: AWS allows up to 30, and under 14 a holiday is enough to miss the order. Set 14 to 30."
  }
}

variable "vault_kv_mount" {
  description = "Mount of the KV version 2 engine that takes the access keys, at ci/aws-backup and ci/aws-backup-watchdog."
  type        = string
  default     = "kv"

  validation {
    condition     = can(regex("^[^/].*[^/]$|^[^/]$", var.vault_kv_mount))
    error_message = "vault_kv_mount: no slash at its beginning or end. Give it as `vault secrets list` shows it, without the last slash."
  }
}

variable "versioning_enabled" {
  description = "Keep what was overwritten or deleted for noncurrent_days. Against a stolen administrator's key it takes object_lock too."
  type        = bool
  default     = false
}

variable "noncurrent_days" {
  description = "With versioning: days that an overwritten or expired version is kept, and paid for."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days: a whole number of days, at least 1. Set versioning_enabled = false to keep no old versions."
  }
}

variable "object_lock" {
  description = "Default retention of every new version: mode GOVERNANCE or COMPLIANCE, and days. It can't be taken back: read README.md first."
  type = object({
    mode = string
    days = number
  })
  default = null

  validation {
    condition     = var.object_lock == null || var.versioning_enabled
    error_message = "object_lock: S3 locks versions, so it needs versioning. Set versioning_enabled = true as well, or leave object_lock out."
  }

  validation {
    condition     = var.object_lock == null || contains(["GOVERNANCE", "COMPLIANCE"], try(var.object_lock.mode, ""))
    error_message = "object_lock.mode: S3 knows two. Set GOVERNANCE (a privileged user can still delete) or COMPLIANCE (nobody can)."
  }

  validation {
    condition     = var.object_lock == null || try(var.object_lock.days >= 1 && var.object_lock.days <= 30 && floor(var.object_lock.days) == var.object_lock.days, false)
    error_message = "object_lock.days: a whole number of days. Set 1 to 30: the lifecycle lets a backup go after 30 days; a longer lock would only hold what is no backup any more."
  }
}

variable "tags" {
  description = "Tags of everything that bears tags."
  type        = map(string)
  default     = {}
}
