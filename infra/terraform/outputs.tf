# azd keeps these as the environment's values, for its hooks and for the scripts in
# infra/entra. None is a secret.
output "AZURE_LOCATION" {
  description = "Region of the resources"
  value       = var.location
}

output "AZURE_TENANT_ID" {
  description = "Tenant of the subscription"
  value       = data.azurerm_client_config.current.tenant_id
}

output "AZURE_RESOURCE_GROUP" {
  description = "Name of the resource group"
  value       = local.group.name
}

output "PATROL_DASHBOARD_URL" {
  description = "Address of the dashboard"
  value       = local.dashboard_url
}

output "PATROL_FUNCTION_APP" {
  description = "Name of the function app"
  value       = module.site.name
}

output "PATROL_URL" {
  description = "Address of the app"
  value       = module.site.url
}

output "PATROL_HEALTH_URL" {
  description = "Answers 200 when patrol can work"
  value       = "${module.site.url}/api/health"
}

output "PATROL_REDIRECT_URI" {
  description = "Redirect URI of the app registration"
  value       = "${var.public_url == "" ? module.site.url : var.public_url}/api/signin/callback"
}

output "PATROL_IDENTITY_PRINCIPAL_ID" {
  description = "The app's identity: subject of the federated credential"
  value       = azurerm_user_assigned_identity.app.principal_id
}

output "PATROL_EVENT_IDENTITY_PRINCIPAL_ID" {
  description = "Event Grid's identity"
  value       = azurerm_user_assigned_identity.event.principal_id
}

output "PATROL_KEY_VAULT" {
  description = "Name of the vault"
  value       = azurerm_key_vault.vault.name
}

output "PATROL_STORAGE_ACCOUNT" {
  description = "Name of the storage account"
  value       = azurerm_storage_account.host.name
}

output "PATROL_SERVICE_BUS" {
  description = "Name of the Service Bus namespace"
  value       = azurerm_servicebus_namespace.bus.name
}

output "PATROL_INSIGHTS" {
  description = "Name of Application Insights"
  value       = azurerm_application_insights.insights.name
}

output "PATROL_EVENT_TOPIC" {
  description = "Topic of patrol's events"
  value       = azurerm_servicebus_topic.events.name
}

output "PATROL_EVENT_SUBSCRIPTION" {
  description = "Subscription to all of patrol's events"
  value       = azurerm_servicebus_subscription.all.name
}

output "PATROL_CONFIRMATION_QUEUE" {
  description = "Queue on which consumers confirm that they have switched"
  value       = azurerm_servicebus_queue.confirmations.name
}

output "PATROL_EGRESS_ADDRESS" {
  description = "The address from which the app calls, if it is fixed here; else empty"
  value       = length(azurerm_public_ip.egress) == 0 ? "" : azurerm_public_ip.egress[0].ip_address
}
