"""The v2 record batch: layout, building, validation, codecs. No I/O, no Trio."""
