# --- What azd asks for

variable "subscription_id" {
  description = "Subscription to deploy to"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "subscription_id must be a GUID in lower case."
  }
}

variable "environment_name" {
  description = "Name of the environment; part of the resource group's name, and what makes the other names unique"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9A-Za-z_()][0-9A-Za-z_().-]{0,63}$", var.environment_name)) && !endswith(var.environment_name, ".")
    error_message = "environment_name must be 1 to 64 letters, digits, - _ . ( or ), and not end in a dot."
  }
}

variable "location" {
  description = "Region of all resources; one that offers Flex Consumption"
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "location must be a region's short name, like westeurope."
  }
}

# --- The app

variable "check_schedule" {
  description = "When the sweep runs: NCRONTAB with six fields, UTC, at least daily; empty: every six hours"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.check_schedule == "" || can(regex("^\\S+ +\\S+ +\\S+ +\\* +\\* +[*?]$", var.check_schedule))
    error_message = "check_schedule must have six fields (second minute hour day month weekday) and sweep at least once a day, like 0 0 */6 * * *: alerts look back for two days at most."
  }
}

variable "log_level" {
  description = "What the handler logs"
  type        = string
  default     = "info"
  nullable    = false

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "log_level must be debug, info, warn or error."
  }
}

variable "service_bus_transport" {
  description = "How Service Bus is reached: amqp (port 5671), or websockets (port 443)"
  type        = string
  default     = "amqp"
  nullable    = false

  validation {
    condition     = contains(["amqp", "websockets"], var.service_bus_transport)
    error_message = "service_bus_transport must be amqp or websockets."
  }
}

variable "manifest" {
  description = "Path of the manifest in the app's package"
  type        = string
  default     = "pats.yaml"
  nullable    = false

  validation {
    condition     = var.manifest != ""
    error_message = "manifest must be a path in the app's package."
  }
}

variable "public_url" {
  description = "Base of the redirect URI and of links; empty: the app's own host name"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.public_url == "" || can(regex("^https://[^/?#@]+(/[^?#]*[^?#/])?$", var.public_url))
    error_message = "public_url must be a plain https:// URL without a slash at its end, or empty."
  }
}

variable "azure_devops_url" {
  description = "Azure DevOps"
  type        = string
  default     = "https://dev.azure.com"
  nullable    = false

  validation {
    condition     = can(regex("^https://[^?#@]+$", var.azure_devops_url))
    error_message = "azure_devops_url must be a plain https:// URL."
  }
}

variable "azure_devops_vssps_url" {
  description = "Azure DevOps, its profile and token service"
  type        = string
  default     = "https://vssps.dev.azure.com"
  nullable    = false

  validation {
    condition     = can(regex("^https://[^?#@]+$", var.azure_devops_vssps_url))
    error_message = "azure_devops_vssps_url must be a plain https:// URL."
  }
}

variable "otlp_endpoint" {
  description = "OTLP endpoint for traces and metrics; empty: none are sent"
  type        = string
  default     = ""
  nullable    = false
}

variable "instance_memory_mb" {
  description = "Memory of an instance in MB"
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = contains([512, 2048, 4096], var.instance_memory_mb)
    error_message = "instance_memory_mb must be 512, 2048 or 4096."
  }
}

variable "maximum_instance_count" {
  description = "The most instances that the app is scaled out to"
  type        = number
  default     = 40
  nullable    = false

  validation {
    condition     = var.maximum_instance_count >= 40 && var.maximum_instance_count <= 1000 && floor(var.maximum_instance_count) == var.maximum_instance_count
    error_message = "maximum_instance_count must be from 40 to 1000."
  }
}

variable "always_ready_http" {
  description = "Instances kept ready for HTTP; each is billed also when idle"
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.always_ready_http >= 0 && var.always_ready_http <= 10 && floor(var.always_ready_http) == var.always_ready_http
    error_message = "always_ready_http must be from 0 to 10."
  }
}

variable "always_ready_reconcile" {
  description = "Instances kept ready for commands; the way of a leaked PAT waits for these, not for those of HTTP"
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.always_ready_reconcile >= 0 && var.always_ready_reconcile <= 10
    error_message = "always_ready_reconcile must be from 0 to 10."
  }
}

variable "extra_settings" {
  description = "Settings of yours beside patrol's, like OTEL_*; no secrets, but references to secrets in a vault"
  type        = map(string)
  default     = {}
  nullable    = false
}

# --- Sign-in

variable "entra_tenant_id" {
  description = "Tenant that people sign in to; empty: the subscription's"
  type        = string
  default     = ""
  nullable    = false
}

variable "entra_client_id" {
  description = "Client id of the app registration that people sign in to; empty until there is one"
  type        = string
  default     = ""
  nullable    = false
}

variable "entra_client_credential" {
  description = "How the app proves to Entra that it is itself"
  type        = string
  default     = "managed-identity"
  nullable    = false

  validation {
    condition     = contains(["managed-identity", "certificate", "none"], var.entra_client_credential)
    error_message = "entra_client_credential must be managed-identity, certificate or none."
  }
}

variable "entra_certificate" {
  description = "Name of the certificate in Key Vault, if entra_client_credential is certificate"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.entra_client_credential != "certificate" || var.entra_certificate != ""
    error_message = "entra_certificate must name a certificate, since entra_client_credential is certificate."
  }
}

variable "authentication_enabled" {
  description = "Puts App Service authentication before the app, in addition to its keys"
  type        = bool
  default     = false
  nullable    = false
}

variable "unauthenticated_action" {
  description = "What App Service authentication does with a caller that has not signed in"
  type        = string
  default     = "RedirectToLoginPage"
  nullable    = false

  validation {
    condition     = contains(["RedirectToLoginPage", "Return401", "Return403", "AllowAnonymous"], var.unauthenticated_action)
    error_message = "unauthenticated_action must be RedirectToLoginPage, Return401, Return403 or AllowAnonymous."
  }
}

# --- Data and messages

variable "vault_purge_protection" {
  description = "Deleted vaults and secrets cannot be purged before their time; cannot be switched off again"
  type        = bool
  default     = true
  nullable    = false
}

variable "vault_soft_delete_days" {
  description = "Days for which deleted secrets can be recovered; cannot be changed later"
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.vault_soft_delete_days >= 7 && var.vault_soft_delete_days <= 90
    error_message = "vault_soft_delete_days must be from 7 to 90."
  }
}

variable "service_bus_sku" {
  description = "Premium is needed for a private endpoint of Service Bus only"
  type        = string
  default     = "Standard"
  nullable    = false

  validation {
    condition     = contains(["Standard", "Premium"], var.service_bus_sku)
    error_message = "service_bus_sku must be Standard or Premium: Basic has no sessions and no topics."
  }
}

variable "confirmation_senders" {
  description = "Who confirms that they have switched to a new PAT, by object id: they may send to pat-confirmations"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.confirmation_senders : can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", id))])
    error_message = "confirmation_senders must be object ids: GUIDs in lower case."
  }
}

# --- Network

variable "vnet_enabled" {
  description = "Puts the app into a virtual network, and storage, vault and (Premium) Service Bus behind private endpoints"
  type        = bool
  default     = false
  nullable    = false
}

variable "vnet_address_prefix" {
  description = "Address range of the virtual network, /25 or larger"
  type        = string
  default     = "10.0.0.0/24"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.vnet_address_prefix, 0)) && can(regex("/([89]|1[0-9]|2[0-5])$", var.vnet_address_prefix))
    error_message = "vnet_address_prefix must be an address range from /8 to /25, like 10.0.0.0/24."
  }
}

variable "app_subnet_id" {
  description = "Subnet of yours for the app, by id, delegated to Microsoft.App/environments; empty: one is made"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = (var.app_subnet_id == "") == (var.endpoint_subnet_id == "")
    error_message = "app_subnet_id and endpoint_subnet_id belong together: give both subnets, or neither."
  }
}

variable "endpoint_subnet_id" {
  description = "Subnet of yours for private endpoints, by id; empty: one is made"
  type        = string
  default     = ""
  nullable    = false
}

variable "private_dns_zones" {
  description = "Private DNS zones: empty: made here; the id of the group that has them; or policy: somebody else enters names"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = contains(["", "policy"], var.private_dns_zones) || startswith(var.private_dns_zones, "/subscriptions/")
    error_message = "private_dns_zones must be empty, policy, or the id of a resource group."
  }
}

variable "nat_gateway_enabled" {
  description = "Makes a NAT gateway with one fixed address, for policies on locations and firewalls that list callers"
  type        = bool
  default     = false
  nullable    = false
}

variable "nat_gateway_id" {
  description = "NAT gateway of yours for the app's subnet, by id"
  type        = string
  default     = ""
  nullable    = false
}

variable "vault_allowed_addresses" {
  description = "Public addresses and ranges from which people and pipelines reach the vault, if a network closes it"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.vault_allowed_addresses) == 0 || var.vnet_enabled
    error_message = "vault_allowed_addresses needs vnet_enabled: without a network they would shut the app itself out of the vault."
  }
}

# --- Monitoring

variable "alert_email" {
  description = "Who is told of alerts; empty: nobody, alerts are seen in the portal only"
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.alert_email == "" || can(regex("^[^@ ]+@[^@ ]+$", var.alert_email))
    error_message = "alert_email must be an e-mail address, or empty."
  }
}

variable "action_group_ids" {
  description = "Action groups of yours that are told of alerts, by id"
  type        = list(string)
  default     = []
  nullable    = false
}

variable "runbook_url" {
  description = "Where the mails of alerts find the runbooks"
  type        = string
  default     = "https://github.com/azure-patrol/patrol/blob/main/docs/operations.md"
  nullable    = false
}

variable "workspace_id" {
  description = "Log Analytics workspace of yours, by id; empty: one is made"
  type        = string
  default     = ""
  nullable    = false
}

variable "log_retention_days" {
  description = "Days for which logs are kept"
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "log_retention_days must be from 30 to 730."
  }
}

variable "log_daily_cap_gb" {
  description = "Gigabytes of logs a day after which the workspace that is made here takes no more; -1: no limit"
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.log_daily_cap_gb >= -1
    error_message = "log_daily_cap_gb must be a number of gigabytes, or -1 for no limit."
  }
}

# --- The landing zone

variable "resource_group" {
  description = "Resource group of yours to deploy into, by name; empty: one is made"
  type        = string
  default     = ""
  nullable    = false
}

variable "tags" {
  description = "Tags of yours on every resource"
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "names" {
  description = "Names of yours, by the keys of abbreviations.json, like {\"keyVault\": \"kv-payments-patrol\"}"
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "zone_redundant" {
  description = "Spreads plan and storage over zones, where the region has them"
  type        = bool
  default     = false
  nullable    = false
}

variable "lock_enabled" {
  description = "Locks vault, identity, storage and Service Bus against deletion"
  type        = bool
  default     = false
  nullable    = false
}

# --- For deployers who must not do everything

variable "assign_roles" {
  description = "Assigns the roles; false: somebody else deploys modules/roles.bicep of the Bicep half"
  type        = bool
  default     = true
  nullable    = false
}

variable "subscribe_to_vault" {
  description = "Subscribes to the vault's events; it needs the roles"
  type        = bool
  default     = true
  nullable    = false
}

variable "register_providers" {
  description = "Registers the resource providers with the subscription; false: they are registered already"
  type        = bool
  default     = true
  nullable    = false
}
