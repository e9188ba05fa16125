"""What Kafka lacks: scheduled delivery, views, retirement."""
