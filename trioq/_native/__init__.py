"""Native code, per byte: CRC-32C, batches, frames, index search, sendfile, file advice. No Trio here."""
