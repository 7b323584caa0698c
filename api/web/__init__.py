"""What is served to browsers: pages, and libraries that are vendored with their hashes."""
