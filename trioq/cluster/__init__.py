"""What a broker of a cluster has beside a single one: membership, pulse, forwarding, handover."""
