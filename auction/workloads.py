"""What a tenant wants to run on the GPUs it wins, kept by content: many bids of one payload store it once.

The auction looks at none of it. A bid carries the digest; the node's agent gets the content.
"""

import hashlib

WORKLOAD_BYTES_MAX = 16 * 1024


def digest_of(content: bytes) -> str:
    """Return what names a workload: SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
