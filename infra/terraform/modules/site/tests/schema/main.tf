# azapi checks the body of what it makes, and takes that of an azapi_update_resource
# as it is. Here the same bodies are planned as things to be made.
terraform {
  required_providers {
    azapi = {
      source  = "azure/azapi"
      version = ">= 1.15.0, < 3.0.0"
    }
  }
}

variable "site_id" {
  description = "The app, by its id"
  type        = string
}

variable "changed" {
  description = "The module's output of this name"
  type        = any
}

resource "azapi_resource" "passwords" {
  for_each = toset(["ftp", "scm"])

  type      = "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2023-12-01"
  parent_id = var.site_id
  name      = each.key
  body      = var.changed.passwords
}

resource "azapi_resource" "authentication" {
  type      = "Microsoft.Web/sites/config@2023-12-01"
  parent_id = var.site_id
  name      = "authsettingsV2"
  body      = var.changed.authentication
}
