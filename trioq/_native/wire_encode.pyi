"""Writes wire messages by plans; for hot_wire alone, which calls it natively."""
