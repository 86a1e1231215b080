# Every variable refuses what Azure or the app would refuse, before anything is made.
mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "00000000-0000-0000-0000-000000000002" }
  }
}

mock_provider "azapi" {}

variables {
  subscription_id  = "00000000-0000-0000-0000-000000000001"
  environment_name = "test"
  location         = "westeurope"
}

run "wrong" {
  command = plan

  variables {
    subscription_id         = "mine"
    environment_name        = "a/b"
    location                = "West Europe"
    check_schedule          = "0 */6 * * *"
    log_level               = "trace"
    service_bus_transport   = "mqtt"
    manifest                = ""
    public_url              = "http://patrol.contoso.com"
    azure_devops_url        = "dev.azure.com"
    azure_devops_vssps_url  = "https://vssps.dev.azure.com?x=1"
    instance_memory_mb      = 1024
    maximum_instance_count  = 39
    always_ready_http       = 11
    entra_client_credential = "secret"
    unauthenticated_action  = "Allow"
    vault_soft_delete_days  = 6
    service_bus_sku         = "Basic"
    vnet_address_prefix     = "10.0.0.0/26"
    alert_email             = "nobody"
    log_retention_days      = 29
    log_daily_cap_gb        = -2
    always_ready_reconcile  = 11
    confirmation_senders    = ["jenkins"]
    app_subnet_id           = "/subscriptions/x"
    private_dns_zones       = "mine"
    vault_allowed_addresses = ["203.0.113.7"]
  }

  expect_failures = [
    var.subscription_id,
    var.environment_name,
    var.location,
    var.check_schedule,
    var.log_level,
    var.service_bus_transport,
    var.manifest,
    var.public_url,
    var.azure_devops_url,
    var.azure_devops_vssps_url,
    var.instance_memory_mb,
    var.maximum_instance_count,
    var.always_ready_http,
    var.entra_client_credential,
    var.unauthenticated_action,
    var.vault_soft_delete_days,
    var.service_bus_sku,
    var.vnet_address_prefix,
    var.alert_email,
    var.log_retention_days,
    var.log_daily_cap_gb,
    var.always_ready_reconcile,
    var.confirmation_senders,
    var.app_subnet_id,
    var.private_dns_zones,
    var.vault_allowed_addresses,
  ]
}

run "certificate_without_a_name" {
  command = plan

  variables {
    entra_client_credential = "certificate"
  }

  expect_failures = [var.entra_certificate]
}

run "a_sweep_on_working_days" {
  command = plan

  variables {
    check_schedule = "0 0 6 * * 1-5"
  }

  expect_failures = [var.check_schedule]
}
