"""What clients cost: trioq's beside others, each in a process of its own, against one broker."""
