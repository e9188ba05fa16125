"""Partitions, their leaders and followers, and those who wait for them."""
