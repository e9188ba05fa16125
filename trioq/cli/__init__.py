"""The `trioq` command."""
