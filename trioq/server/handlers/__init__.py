"""One module per API, each listed in `registry`."""
