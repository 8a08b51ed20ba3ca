"""Models that write: the embedded engine, servers, and whatever else implements `protocols.Policy`."""
