# The bucket of a system that runs already. Terraform takes these into its state at the first apply; later they do nothing.

locals {
  adopted = var.adopt_existing_bucket ? toset([var.bucket_name]) : toset([])
}

import {
  for_each = local.adopted
  to       = module.pv_backup.aws_s3_bucket.backup
  id       = each.value
}

import {
  for_each = local.adopted
  to       = module.pv_backup.aws_s3_bucket_public_access_block.backup
  id       = each.value
}

import {
  for_each = local.adopted
  to       = module.pv_backup.aws_s3_bucket_lifecycle_configuration.backup
  id       = each.value
}

import {
  for_each = local.adopted
  to       = module.pv_backup.aws_s3_bucket_server_side_encryption_configuration.backup
  id       = each.value
}

# A bucket that was never versioned has the state "Disabled" to be imported, and is switched on by the same apply.
import {
  for_each = var.versioning_enabled ? local.adopted : toset([])
  to       = module.pv_backup.aws_s3_bucket_versioning.backup[0]
  id       = each.value
}

import {
  for_each = var.object_lock == null ? toset([]) : local.adopted
  to       = module.pv_backup.aws_s3_bucket_object_lock_configuration.backup[0]
  id       = each.value
}
