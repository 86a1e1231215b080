# The real azapi plans, without Azure: it checks every body against Azure's types.
# Where a value is not known at plan it would let the body pass, so all are given.
provider "azapi" {
  subscription_id = "00000000-0000-0000-0000-000000000001"
  tenant_id       = "00000000-0000-0000-0000-000000000002"
  client_id       = "00000000-0000-0000-0000-000000000003"
  client_secret   = "not used"
  use_cli         = false
  use_msi         = false
}

variables {
  resource_group_id          = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test"
  location                   = "westeurope"
  tags                       = { azd-env-name = "test" }
  name                       = "func-test"
  plan_name                  = "asp-test"
  storage_name               = "sttest"
  deployment_container_url   = "https://sttest.blob.core.windows.net/deployment"
  state_url                  = "https://sttest.blob.core.windows.net/patrol-state"
  insights_connection_string = "InstrumentationKey=00000000-0000-0000-0000-000000000004"
  key_vault_url              = "https://kv-test.vault.azure.net"
  subnet_id                  = ""
  instance_memory_mb         = 512
  maximum_instance_count     = 40
  always_ready_http          = 0
  always_ready_reconcile     = 0
  zone_redundant             = false
  extra_settings             = {}
  check_schedule             = "0 0 */6 * * *"
  log_level                  = "info"
  service_bus_transport      = "amqp"
  manifest                   = "pats.yaml"
  public_url                 = ""
  azure_devops_url           = "https://dev.azure.com"
  azure_devops_vssps_url     = "https://vssps.dev.azure.com"
  otlp_endpoint              = ""

  identity = {
    id        = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-test"
    client_id = "00000000-0000-0000-0000-000000000005"
  }

  bus = {
    host               = "sbns-test.servicebus.windows.net"
    command_queue      = "pat-commands"
    vault_event_queue  = "vault-events"
    confirmation_queue = "pat-confirmations"
    event_topic        = "pat-events"
  }

  entra = {
    tenant_id         = "00000000-0000-0000-0000-000000000002"
    client_id         = "00000000-0000-0000-0000-000000000006"
    client_credential = "managed-identity"
    certificate       = ""
  }

  authentication = {
    enabled                = false
    unauthenticated_action = "RedirectToLoginPage"
  }
}

run "plain" {
  command = plan

  assert {
    condition = { for s in azapi_resource.site.body.properties.siteConfig.appSettings : s.name => s.value } == {
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING     = "ClientId=00000000-0000-0000-0000-000000000005;Authorization=AAD"
      APPLICATIONINSIGHTS_CONNECTION_STRING         = "InstrumentationKey=00000000-0000-0000-0000-000000000004"
      AZURE_AUTHORITY_HOST                          = "https://login.microsoftonline.com/"
      AZURE_CLIENT_ID                               = "00000000-0000-0000-0000-000000000005"
      AZURE_DEVOPS_URL                              = "https://dev.azure.com"
      AZURE_DEVOPS_VSSPS_URL                        = "https://vssps.dev.azure.com"
      AzureWebJobsStorage__accountName              = "sttest"
      AzureWebJobsStorage__clientId                 = "00000000-0000-0000-0000-000000000005"
      AzureWebJobsStorage__credential               = "managedidentity"
      CHECK_SCHEDULE                                = "0 0 */6 * * *"
      COMMAND_QUEUE                                 = "pat-commands"
      CONFIRMATION_QUEUE                            = "pat-confirmations"
      ENTRA_CLIENT_CREDENTIAL                       = "managed-identity"
      ENTRA_CLIENT_ID                               = "00000000-0000-0000-0000-000000000006"
      ENTRA_TENANT_ID                               = "00000000-0000-0000-0000-000000000002"
      EVENT_TOPIC                                   = "pat-events"
      KEY_VAULT_URL                                 = "https://kv-test.vault.azure.net"
      LOG_LEVEL                                     = "info"
      PATROL_MANIFEST                               = "pats.yaml"
      PUBLIC_URL                                    = "https://func-test.azurewebsites.net"
      ServiceBusConnection__clientId                = "00000000-0000-0000-0000-000000000005"
      ServiceBusConnection__credential              = "managedidentity"
      ServiceBusConnection__fullyQualifiedNamespace = "sbns-test.servicebus.windows.net"
      STATE_URL                                     = "https://sttest.blob.core.windows.net/patrol-state"
      VAULT_EVENT_QUEUE                             = "vault-events"
    }
    error_message = "The app's settings are not the ones that it reads, or not all, or more."
  }

  assert {
    condition     = azapi_resource.site.body.properties.serverFarmId == "${var.resource_group_id}/providers/Microsoft.Web/serverfarms/asp-test"
    error_message = "The app must run on its plan."
  }

  assert {
    condition     = azapi_resource.plan.body.sku.name == "FC1" && azapi_resource.site.body.properties.functionAppConfig.runtime.name == "custom"
    error_message = "The app must be a custom handler on Flex Consumption."
  }

  assert {
    condition     = azapi_resource.site.body.properties.functionAppConfig.deployment.storage.authentication.userAssignedIdentityResourceId == var.identity.id
    error_message = "The package must be read by the app's identity."
  }

  assert {
    condition     = azapi_resource.site.tags == tomap({ azd-env-name = "test", azd-service-name = "patrol" })
    error_message = "azd finds the app by its tags."
  }

  assert {
    condition     = length(azapi_resource.site.body.properties.functionAppConfig.scaleAndConcurrency.alwaysReady) == 0
    error_message = "No instance may be billed when idle unless asked for."
  }

  assert {
    condition     = !can(azapi_resource.site.body.properties.virtualNetworkSubnetId)
    error_message = "There is no network unless asked for."
  }

  assert {
    condition     = keys(azapi_update_resource.passwords) == ["ftp", "scm"] && alltrue([for p in azapi_update_resource.passwords : !p.body.properties.allow])
    error_message = "Deployment by password must be off."
  }

  assert {
    condition     = !azapi_update_resource.authentication.body.properties.platform.enabled && !try(azapi_update_resource.authentication.body.properties.globalValidation.requireAuthentication, false)
    error_message = "App Service authentication must be written as off unless asked for: what is left out stays on."
  }

  assert {
    condition     = azapi_resource.site.body.properties.keyVaultReferenceIdentity == var.identity.id
    error_message = "Settings that refer to a vault must be read by the app's identity."
  }
}

run "everything_asked_for" {
  command = plan

  variables {
    subnet_id              = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test/subnets/app"
    always_ready_http      = 2
    always_ready_reconcile = 1
    zone_redundant         = true
    extra_settings         = { OTEL_SERVICE_NAME = "patrol-test", LOG_LEVEL = "mine" }
    public_url             = "https://patrol.contoso.com"
    service_bus_transport  = "websockets"
    otlp_endpoint          = "https://otlp.contoso.com"

    entra = {
      tenant_id         = "00000000-0000-0000-0000-000000000002"
      client_id         = "00000000-0000-0000-0000-000000000006"
      client_credential = "certificate"
      certificate       = "sign-in"
    }

    authentication = {
      enabled                = true
      unauthenticated_action = "Return401"
    }
  }

  assert {
    condition = { for s in azapi_resource.site.body.properties.siteConfig.appSettings : s.name => s.value if contains([
      "ENTRA_CERTIFICATE", "LOG_LEVEL", "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID", "PUBLIC_URL",
      "SERVICE_BUS_TRANSPORT", "AzureFunctionsJobHost__extensions__serviceBus__transportType",
      ], s.name) } == {
      AzureFunctionsJobHost__extensions__serviceBus__transportType = "amqpWebSockets"
      SERVICE_BUS_TRANSPORT                                        = "websockets"
      ENTRA_CERTIFICATE                                            = "sign-in"
      LOG_LEVEL                                                    = "info"
      OTEL_SERVICE_NAME                                            = "patrol-test"
      OTEL_EXPORTER_OTLP_ENDPOINT                                  = "https://otlp.contoso.com"
      OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID                       = "00000000-0000-0000-0000-000000000005"
      PUBLIC_URL                                                   = "https://patrol.contoso.com"
    }
    error_message = "What is asked for must reach the app's settings."
  }

  assert {
    condition     = length(azapi_resource.site.body.properties.siteConfig.appSettings) == 31
    error_message = "Six settings come on top of the 25, no more."
  }

  assert {
    condition     = azapi_resource.site.body.properties.virtualNetworkSubnetId == var.subnet_id && azapi_resource.site.body.properties.vnetRouteAllEnabled
    error_message = "All that leaves the app must go through the network."
  }

  assert {
    condition     = azapi_resource.site.body.properties.functionAppConfig.scaleAndConcurrency.alwaysReady == [{ name = "function:reconcile", instanceCount = 1 }, { name = "http", instanceCount = 2 }]
    error_message = "Two instances must be ready for HTTP, and one for commands."
  }

  assert {
    condition     = azapi_resource.plan.body.properties.zoneRedundant
    error_message = "Instances must be spread over zones."
  }

  assert {
    condition     = azapi_update_resource.authentication.body.properties.globalValidation.excludedPaths == ["/api/health", "/api/signin/callback", "/api/dashboard"]
    error_message = "What the app itself leaves open must stay open."
  }
}

run "authentication_before_the_registration" {
  command = plan

  variables {
    entra = {
      tenant_id         = "00000000-0000-0000-0000-000000000002"
      client_id         = ""
      client_credential = "managed-identity"
      certificate       = ""
    }

    authentication = {
      enabled                = true
      unauthenticated_action = "RedirectToLoginPage"
    }
  }

  assert {
    condition     = !azapi_update_resource.authentication.body.properties.platform.enabled && !can(azapi_update_resource.authentication.body.properties.identityProviders.azureActiveDirectory.registration)
    error_message = "Without a registration there is nothing to sign in to."
  }
}

# See schema/main.tf.
run "bodies_of_what_is_changed" {
  command = plan

  module {
    source = "./tests/schema"
  }

  variables {
    site_id = "${var.resource_group_id}/providers/Microsoft.Web/sites/func-test"
    changed = run.everything_asked_for.changed
  }

  assert {
    condition     = azapi_resource.authentication.body.properties.globalValidation.unauthenticatedClientAction == "Return401"
    error_message = "The body that is checked must be the module's."
  }
}

# As if Azure had made it all.
run "made" {
  command = apply

  override_resource {
    target = azapi_resource.plan
  }

  override_resource {
    target = azapi_resource.site
    values = { output = { properties = { defaultHostName = "func-test.azurewebsites.net" } } }
  }

  override_resource {
    target = azapi_update_resource.passwords
  }

  override_resource {
    target = azapi_update_resource.authentication
  }

  assert {
    condition     = output.url == "https://func-test.azurewebsites.net" && output.name == "func-test"
    error_message = "The app's address must be the one that Azure gave it."
  }
}

run "made_under_another_host_name" {
  command   = apply
  state_key = "another"

  override_resource {
    target = azapi_resource.plan
  }

  override_resource {
    target = azapi_resource.site
    values = { output = { properties = { defaultHostName = "func-test-a1b2.westeurope-01.azurewebsites.net" } } }
  }

  override_resource {
    target = azapi_update_resource.passwords
  }

  override_resource {
    target = azapi_update_resource.authentication
  }

  expect_failures = [azapi_resource.site]
}
