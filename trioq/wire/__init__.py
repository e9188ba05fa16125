"""The Kafka protocol: schema tables, one codec engine, versions. No I/O, no Trio."""
