"""What a user installs: the command line, the demo, and what they are made of."""
