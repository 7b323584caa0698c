"""What the transport can be told, and the bounds it refuses to start beyond."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from api.rate_limits import Policies

Reach = Literal["public", "loopback", "private"]


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one API process. `port` 0 lets the system choose."""

    host: str = "127.0.0.1"
    port: int = 8080
    is_demo: bool = False
    body_bytes_max: int = 64 * 1024
    batch_body_bytes_max: int = 256 * 1000
    body_seconds_max: float = 30.0
    header_seconds_max: float = 10.0  # from connecting to the end of the first request's headers
    connections_max: int = 4_000
    rates: Policies = field(default_factory=Policies)
    behind_proxy: bool = False  # one that ends TLS and writes X-Forwarded-For
    metrics_port: int = 0  # on loopback, whatever `host` is
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    heartbeat_seconds: float = 10.0
    send_seconds_max: float = 20.0
    key_cache_seconds: float = 2.0
    node_degraded_seconds: float = 15.0
    node_offline_seconds: float = 60.0
    runs_simulator: bool = False
    simulator_start_seconds: float = 1.0
    simulator_drain_seconds: float = 1.0
    sends_webhooks: bool = True  # a worker may do it instead (fallow/worker.py)
    # Where webhooks may go beyond public addresses; None: a demo also to loopback, others nowhere.
    webhook_reach: Reach | None = None
    webhook_ports: tuple[int, ...] = (443,)  # of public receivers

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) is not (self.tls_key is None):
            raise ValueError("TLS needs a certificate and its key")
        if not (is_loopback(self.host) or self.behind_proxy or self.tls_certificate):
            raise ValueError(
                f"host {self.host}: beyond loopback only with a TLS certificate and key, or behind a proxy"
            )
        if self.is_demo and not is_loopback(self.host):
            raise ValueError(f"host {self.host}: a demo is served on loopback only")
        if self.connections_max < 1:
            raise ValueError("connections_max must be above zero")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port {self.port}: expected 0 to 65535")
        if not 0 <= self.metrics_port <= 65_535:
            raise ValueError(f"metrics port {self.metrics_port}: expected 0 to 65535")
        if not 0 < self.body_bytes_max <= self.batch_body_bytes_max <= 16 * 1024 * 1024:
            raise ValueError("body caps: expected 0 < body_bytes_max <= batch_body_bytes_max <= 16 MiB")
        if not 0 < self.key_cache_seconds <= 2:
            raise ValueError("key_cache_seconds: a revoked key must stop working within 2 s")
        times = (
            self.heartbeat_seconds,
            self.send_seconds_max,
            self.body_seconds_max,
            self.header_seconds_max,
        )
        if min(times) <= 0:
            raise ValueError("times must be above zero")
        if not 0 < self.node_degraded_seconds < self.node_offline_seconds:
            raise ValueError("a node is degraded before it is offline")
        if min(self.simulator_start_seconds, self.simulator_drain_seconds) < 0:
            raise ValueError("simulator delays must not be negative")
        if not self.webhook_ports or not all(1 <= port <= 65_535 for port in self.webhook_ports):
            raise ValueError("webhook_ports: expected ports from 1 to 65535")

    @property
    def is_https(self) -> bool:
        """Return whether browsers reach this server over TLS."""
        return self.behind_proxy or self.tls_certificate is not None

    @property
    def reach(self) -> Reach:
        """Return which receivers webhooks may be sent to."""
        return self.webhook_reach or ("loopback" if self.is_demo else "public")


def is_loopback(host: str) -> bool:
    """Say whether `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
