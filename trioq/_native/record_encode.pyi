"""Encoding of records for `trioq._native.batch.build`: nothing here is called from Python."""
