"""The domain: every decision of the market, and nothing of sockets or SQL."""
