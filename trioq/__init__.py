"""trioq: a distributed message queue on Trio that every Kafka client can talk to."""

__version__ = "0.1.0"
