"""Each order under way on this host, from the first look at it to its report."""
