"""What several brokers on one machine do: what replication costs, how fast leaders are replaced."""
