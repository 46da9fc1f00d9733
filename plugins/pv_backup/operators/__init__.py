"""One task of a runbook each: validate, call a service, return a small result."""
