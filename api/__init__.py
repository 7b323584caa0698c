"""The transport: HTTP and WebSocket around the engine. It decides shapes and statuses, never outcomes."""
