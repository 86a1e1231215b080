module github.com/azure-patrol/patrol/events

go 1.26.0

toolchain go1.26.8
