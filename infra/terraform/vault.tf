# The vault is patrol's memory: every PAT, its ledger, and the sign-ins.
resource "azurerm_key_vault" "vault" {
  name                       = local.vault_name
  resource_group_name        = local.group.name
  location                   = var.location
  tags                       = local.tags
  tenant_id                  = data.azurerm_client_config.current.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  soft_delete_retention_days = var.vault_soft_delete_days
  purge_protection_enabled   = var.vault_purge_protection

  # Where it is disabled, rules are not looked at.
  public_network_access_enabled = !var.vnet_enabled || length(var.vault_allowed_addresses) > 0

  network_acls {
    default_action = var.vnet_enabled ? "Deny" : "Allow"
    bypass         = "AzureServices"
    ip_rules       = var.vault_allowed_addresses
  }
}

resource "azurerm_monitor_diagnostic_setting" "vault" {
  name                       = "audit"
  target_resource_id         = azurerm_key_vault.vault.id
  log_analytics_workspace_id = local.workspace_id

  enabled_log {
    category_group = "audit"
  }
}
