variable "resource_group_id" {
  description = "Resource group, by its id"
  type        = string
  nullable    = false
}

variable "location" {
  description = "Region of the resources"
  type        = string
  nullable    = false
}

variable "tags" {
  description = "Tags of every resource"
  type        = map(string)
  nullable    = false
}

variable "name" {
  description = "Name of the app"
  type        = string
  nullable    = false
}

variable "plan_name" {
  description = "Name of the plan"
  type        = string
  nullable    = false
}

variable "identity" {
  description = "The app's identity: by its id, and as it names itself"
  type = object({
    id        = string
    client_id = string
  })
  nullable = false
}

variable "storage_name" {
  description = "Name of the host's storage account"
  type        = string
  nullable    = false
}

variable "deployment_container_url" {
  description = "Address of the container of the app's package"
  type        = string
  nullable    = false
}

variable "state_url" {
  description = "STATE_URL"
  type        = string
  nullable    = false
}

variable "insights_connection_string" {
  description = "Where telemetry goes; with local authentication off this is an address, not a secret"
  type        = string
  nullable    = false
}

variable "key_vault_url" {
  description = "The vault's address, without a slash at its end"
  type        = string
  nullable    = false
}

variable "bus" {
  description = "Service Bus: host name, queues and topic"
  type = object({
    host               = string
    command_queue      = string
    vault_event_queue  = string
    confirmation_queue = string
    event_topic        = string
  })
  nullable = false
}

variable "subnet_id" {
  description = "The subnet, by its id; empty: none"
  type        = string
  nullable    = false
}

variable "instance_memory_mb" {
  description = "Memory of an instance in MB"
  type        = number
  nullable    = false
}

variable "maximum_instance_count" {
  description = "The most instances"
  type        = number
  nullable    = false
}

variable "always_ready_http" {
  description = "Instances kept ready for HTTP"
  type        = number
  nullable    = false
}

variable "always_ready_reconcile" {
  description = "Instances kept ready for commands"
  type        = number
  nullable    = false
}

variable "zone_redundant" {
  description = "Spreads instances over zones"
  type        = bool
  nullable    = false
}

variable "extra_settings" {
  description = "Settings beside patrol's; patrol's own win"
  type        = map(string)
  nullable    = false
}

variable "check_schedule" {
  description = "CHECK_SCHEDULE"
  type        = string
  nullable    = false
}

variable "log_level" {
  description = "LOG_LEVEL"
  type        = string
  nullable    = false
}

variable "service_bus_transport" {
  description = "SERVICE_BUS_TRANSPORT"
  type        = string
  nullable    = false
}

variable "manifest" {
  description = "PATROL_MANIFEST"
  type        = string
  nullable    = false
}

variable "public_url" {
  description = "PUBLIC_URL; empty: the app's own host name"
  type        = string
  nullable    = false
}

variable "azure_devops_url" {
  description = "AZURE_DEVOPS_URL"
  type        = string
  nullable    = false
}

variable "azure_devops_vssps_url" {
  description = "AZURE_DEVOPS_VSSPS_URL"
  type        = string
  nullable    = false
}

variable "otlp_endpoint" {
  description = "OTEL_EXPORTER_OTLP_ENDPOINT; empty: not set"
  type        = string
  nullable    = false
}

variable "entra" {
  description = "What people sign in to, and how the app proves that it is itself"
  type = object({
    tenant_id         = string
    client_id         = string
    client_credential = string
    certificate       = string
  })
  nullable = false
}

variable "authentication" {
  description = "App Service authentication before the app, and what becomes of a caller that has not signed in"
  type = object({
    enabled                = bool
    unauthenticated_action = string
  })
  nullable = false
}
