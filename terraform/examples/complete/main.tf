# All of it: copy this folder, fill in terraform.tfvars, and follow ../../README.md.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25, < 7.0"
    }
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.6, < 6.0"
    }
  }

  # The state holds the access keys' secrets. So it lies in a bucket of its own, encrypted, which only whoever applies this
  # can read; never in the bucket that it makes. Bucket and key of the state: backend.hcl, for `terraform init`.
  backend "s3" {
    key          = "pv-backup/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]
}

# Address and token come from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}

module "pv_backup" {
  source = "../.."

  bucket_name        = var.bucket_name
  versioning_enabled = var.versioning_enabled
  object_lock        = var.object_lock
  tags               = { service = "pv-backup" }
}
