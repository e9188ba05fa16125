"""The Python client, on anyio."""
