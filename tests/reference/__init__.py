"""Plain-Python reference codec: the oracle that native code is compared with; never shipped.

Written for reading, straight from the format, with nothing shared with the code under test but
the error classes.
"""
