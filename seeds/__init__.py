"""Seeds: models small enough to ship, and the worlds they were raised in."""
