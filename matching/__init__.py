"""The kernel: book and clearing. Integers in, integers out; no clock, no money, no names."""
