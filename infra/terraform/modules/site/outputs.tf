output "id" {
  description = "The app, by its id"
  value       = azapi_resource.site.id
}

output "name" {
  description = "Name of the app"
  value       = azapi_resource.site.name
}

output "url" {
  description = "Address of the app"
  value       = "https://${azapi_resource.site.output.properties.defaultHostName}"
}

output "changed" {
  description = "Bodies of what is changed, not made: azapi checks them in the module's tests only"
  value = {
    passwords      = local.passwords
    authentication = local.authentication
  }
}
