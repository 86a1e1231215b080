terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    azapi = {
      source  = "azure/azapi"
      version = ">= 1.15.0, < 3.0.0"
    }
  }
}
