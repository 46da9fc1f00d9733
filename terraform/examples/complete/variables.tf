variable "account_id" {
  description = "The AWS account; anything else is refused before it is touched."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id: 12 digits. `aws sts get-caller-identity` shows the account of your credentials."
  }
}

variable "region" {
  description = "Region of bucket and key."
  type        = string
  default     = "eu-west-3"
}

variable "bucket_name" {
  description = "The bucket of the backups."
  type        = string
}

variable "adopt_existing_bucket" {
  description = "The bucket is there already, with its public-access block and its lifecycle: import them, make none."
  type        = bool
  default     = false
}

variable "versioning_enabled" {
  description = "Keep old versions; see the module's README.md for what that costs."
  type        = bool
  default     = false
}

variable "object_lock" {
  description = "Lock every new version; see the module's README.md before you set it."
  type        = object({ mode = string, days = number })
  default     = null
}
