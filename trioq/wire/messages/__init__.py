"""One module per API: the declaration of its request and response."""
