"""Topics, placement, elections, reassignment."""
