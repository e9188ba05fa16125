"""Small, consistent, watched state: topics, configs, partition states; embedded or ZooKeeper."""
