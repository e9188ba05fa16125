"""Native code, per byte: CRC-32C, batches, frames, index search, system calls. No Trio here."""
