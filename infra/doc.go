// Package infra holds what patrol runs on, as code: Bicep in this folder, Terraform
// below it, the Entra registration apart. Its tests are the check of all that: they
// compile the templates and hold what comes out against the app's own code, so that a
// setting, a queue or a role cannot be right in one place and wrong in another.
//
// Nothing imports it, and it has no code of its own.
package infra
