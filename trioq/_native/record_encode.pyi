"""Encoding of records for `trioq._native.batch.build`; cimport only, nothing to call from Python."""
