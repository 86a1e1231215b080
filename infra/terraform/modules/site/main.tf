# The function app, on Flex Consumption, and all of its settings. It is written with
# azapi: azurerm's own resource sets a plain AzureWebJobsStorage beside an identity,
# and a plain one wins (terraform-provider-azurerm#29693).

locals {
  # Ids are put together, not read: then a plan knows the whole body, and azapi checks
  # it before anything is made.
  plan_id = "${azapi_resource.plan.parent_id}/providers/Microsoft.Web/serverfarms/${azapi_resource.plan.name}"
  site_id = "${azapi_resource.site.parent_id}/providers/Microsoft.Web/sites/${azapi_resource.site.name}"

  host       = "${var.name}.azurewebsites.net"
  login      = "https://login.microsoftonline.com/"
  in_network = var.subnet_id != ""

  # Without a registration there is nothing to sign in to.
  authenticates = var.authentication.enabled && var.entra.client_id != ""

  # Each group of functions scales by itself, and is kept ready by itself.
  ready = [for name, n in { "function:reconcile" = var.always_ready_reconcile, http = var.always_ready_http } : { name = name, instanceCount = n } if n > 0]

  certificate = var.entra.client_credential == "certificate"

  # This is the whole set: what is not here is removed. No value is a secret.
  settings = merge(
    # patrol's own win.
    var.extra_settings,
    {
      AzureWebJobsStorage__accountName              = var.storage_name
      AzureWebJobsStorage__credential               = "managedidentity"
      AzureWebJobsStorage__clientId                 = var.identity.client_id
      APPLICATIONINSIGHTS_CONNECTION_STRING         = var.insights_connection_string
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING     = "ClientId=${var.identity.client_id};Authorization=AAD"
      AZURE_CLIENT_ID                               = var.identity.client_id
      KEY_VAULT_URL                                 = var.key_vault_url
      ServiceBusConnection__fullyQualifiedNamespace = var.bus.host
      ServiceBusConnection__credential              = "managedidentity"
      ServiceBusConnection__clientId                = var.identity.client_id
      COMMAND_QUEUE                                 = var.bus.command_queue
      VAULT_EVENT_QUEUE                             = var.bus.vault_event_queue
      CONFIRMATION_QUEUE                            = var.bus.confirmation_queue
      EVENT_TOPIC                                   = var.bus.event_topic
      CHECK_SCHEDULE                                = var.check_schedule
      PATROL_MANIFEST                               = var.manifest
      STATE_URL                                     = var.state_url
      LOG_LEVEL                                     = var.log_level
      PUBLIC_URL                                    = var.public_url == "" ? "https://${local.host}" : var.public_url
      ENTRA_TENANT_ID                               = var.entra.tenant_id
      ENTRA_CLIENT_ID                               = var.entra.client_id
      ENTRA_CLIENT_CREDENTIAL                       = var.entra.client_credential
      AZURE_AUTHORITY_HOST                          = local.login
      AZURE_DEVOPS_URL                              = var.azure_devops_url
      AZURE_DEVOPS_VSSPS_URL                        = var.azure_devops_vssps_url
    },
    # The handler sends by the first, the host receives by the second.
    var.service_bus_transport == "amqp" ? {} : {
      SERVICE_BUS_TRANSPORT                                        = var.service_bus_transport
      AzureFunctionsJobHost__extensions__serviceBus__transportType = "amqpWebSockets"
    },
    local.certificate ? { ENTRA_CERTIFICATE = var.entra.certificate } : {},
    var.otlp_endpoint == "" ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT = var.otlp_endpoint },
    # App Service's name for: prove yourself by this identity, not by a secret.
    local.authenticates ? { OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID = var.identity.client_id } : {},
  )

  # What exists as soon as the site does, and can only be changed.
  passwords = { properties = { allow = false } }
  authentication = {
    properties = {
      platform = { enabled = local.authenticates }
      # What the app itself leaves open stays open.
      globalValidation = {
        requireAuthentication       = local.authenticates && var.authentication.unauthenticated_action != "AllowAnonymous"
        unauthenticatedClientAction = local.authenticates ? var.authentication.unauthenticated_action : "AllowAnonymous"
        redirectToProvider          = "azureactivedirectory"
        excludedPaths               = ["/api/health", "/api/signin/callback", "/api/dashboard"]
      }
      httpSettings = { requireHttps = true }
      identityProviders = {
        azureActiveDirectory = merge({ enabled = local.authenticates }, { for name, value in {
          registration = {
            openIdIssuer            = "${local.login}${var.entra.tenant_id}/v2.0"
            clientId                = var.entra.client_id
            clientSecretSettingName = "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID"
          }
          validation = { allowedAudiences = [var.entra.client_id, "api://${var.entra.client_id}"] }
        } : name => value if local.authenticates })
      }
      login = { tokenStore = { enabled = false } }
    }
  }
}

resource "azapi_resource" "plan" {
  type      = "Microsoft.Web/serverfarms@2023-12-01"
  parent_id = var.resource_group_id
  name      = var.plan_name
  location  = var.location
  tags      = var.tags

  body = {
    kind = "functionapp"
    sku = {
      name = "FC1"
      tier = "FlexConsumption"
    }
    properties = {
      reserved      = true
      zoneRedundant = var.zone_redundant
    }
  }
}

resource "azapi_resource" "site" {
  type      = "Microsoft.Web/sites@2023-12-01"
  parent_id = var.resource_group_id
  name      = var.name
  location  = var.location
  tags      = merge(var.tags, { azd-service-name = "patrol" })

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity.id]
  }

  body = {
    kind = "functionapp,linux"
    properties = merge(
      {
        serverFarmId        = local.plan_id
        httpsOnly           = true
        publicNetworkAccess = "Enabled"

        # By this identity the platform reads what a setting refers to in a vault.
        keyVaultReferenceIdentity = var.identity.id

        siteConfig = {
          minTlsVersion    = "1.2"
          scmMinTlsVersion = "1.2"
          http20Enabled    = true
          appSettings      = [for name, value in local.settings : { name = name, value = value }]
        }

        functionAppConfig = {
          runtime = {
            name    = "custom"
            version = "1.0"
          }
          deployment = {
            storage = {
              type  = "blobContainer"
              value = var.deployment_container_url
              authentication = {
                type                           = "UserAssignedIdentity"
                userAssignedIdentityResourceId = var.identity.id
              }
            }
          }
          scaleAndConcurrency = {
            instanceMemoryMB     = var.instance_memory_mb
            maximumInstanceCount = var.maximum_instance_count
            alwaysReady          = local.ready
          }
        }
      },
      # All that leaves the app goes through the network.
      { for name, value in { virtualNetworkSubnetId = var.subnet_id, vnetRouteAllEnabled = true } : name => value if local.in_network },
    )
  }

  response_export_values = ["properties.defaultHostName"]

  lifecycle {
    postcondition {
      condition     = var.public_url != "" || self.output.properties.defaultHostName == local.host
      error_message = "The app has another host name than ${local.host}: set public_url to its address."
    }
  }
}

# Deployments come with an Entra token, never with a password.
resource "azapi_update_resource" "passwords" {
  for_each = toset(["ftp", "scm"])

  type        = "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2023-12-01"
  resource_id = "${local.site_id}/basicPublishingCredentialsPolicies/${each.key}"
  body        = local.passwords
}

# The host's own keys still count: this stands before them. It is written when it is off,
# too: what an update leaves out stays as it was.
resource "azapi_update_resource" "authentication" {
  type        = "Microsoft.Web/sites/config@2023-12-01"
  resource_id = "${local.site_id}/config/authsettingsV2"
  body        = local.authentication
}
