terraform {
  # 1.11 is the first with write-only arguments, which keep an access key's secret out of a second place in the state.
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
}
