"""Sockets: poller, receive buffers, egress with sendfile, TLS."""
