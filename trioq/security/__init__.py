"""TLS contexts, SASL, ACLs, quotas."""
