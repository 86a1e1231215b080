terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.2"
    }
    azapi = {
      source  = "azure/azapi"
      version = ">= 1.15.0, < 3.0.0"
    }
  }
}

provider "azurerm" {
  subscription_id = var.subscription_id

  # The storage account has no keys.
  storage_use_azuread = true

  resource_providers_to_register = var.register_providers ? [
    "Microsoft.App",
    "Microsoft.EventGrid",
    "Microsoft.Insights",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
    "Microsoft.OperationalInsights",
    "Microsoft.ServiceBus",
    "Microsoft.Storage",
    "Microsoft.Web",
  ] : []

  features {
    # The vault is patrol's memory: what is destroyed can be recovered.
    key_vault {
      purge_soft_delete_on_destroy    = false
      recover_soft_deleted_key_vaults = true
    }
  }
}

provider "azapi" {
  subscription_id = var.subscription_id
}
