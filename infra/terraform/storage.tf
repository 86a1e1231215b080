# The host's storage, the container that the app's package lies in, and the one of the
# app's state. It has no keys to give away: they are switched off.
resource "azurerm_storage_account" "host" {
  name                             = local.name.storageAccount
  resource_group_name              = local.group.name
  location                         = var.location
  tags                             = local.tags
  account_kind                     = "StorageV2"
  account_tier                     = "Standard"
  account_replication_type         = var.zone_redundant ? "ZRS" : "LRS"
  min_tls_version                  = "TLS1_2"
  https_traffic_only_enabled       = true
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  public_network_access_enabled    = !var.vnet_enabled

  network_rules {
    default_action = var.vnet_enabled ? "Deny" : "Allow"
    bypass         = ["AzureServices"]
  }

  blob_properties {
    delete_retention_policy {
      days = 7
    }
  }
}

resource "azurerm_storage_container" "deployment" {
  name                  = "deployment"
  storage_account_id    = azurerm_storage_account.host.id
  container_access_type = "private"
}

resource "azurerm_storage_container" "state" {
  name                  = local.state_container
  storage_account_id    = azurerm_storage_account.host.id
  container_access_type = "private"
}
