"""Encoding of records for the native modules that build batches: nothing is called from Python."""
