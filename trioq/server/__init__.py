"""The reactor, connections, dispatch and request handlers."""
