"""What must have happened at least once: a fault that never fired proves nothing, so it fails the run."""

from collections import Counter


class Coverage:
    """Counts what happened; `missing` says what did not."""

    def __init__(self, expected):
        self.expected = frozenset(expected)
        self.seen = Counter()

    def sometimes(self, name, count=1):
        assert name in self.expected, f"{name!r} is not among what is expected"
        self.seen[name] += count

    def add(self, other):
        self.seen.update(other.seen)

    def missing(self):
        return sorted(name for name in self.expected if not self.seen[name])
