"""A recalled GPU is its owner's: it does not go to another tenant of the same node."""

from auction.commands import CreateOffer, WithdrawOffer
from auction.model import LEASE_ON_NODE
from tests.small_market import Market


def test_a_withdrawn_offers_gpu_is_not_given_to_a_tenant_of_the_other_offer():
    """Two offers on one node; one is withdrawn, and the other one's tenant is outbid meanwhile."""
    market = Market()
    market.do(CreateOffer("off_x", "acct_owner", "node", 1, 500_000))
    market.do(CreateOffer("off_y", "acct_owner", "node", 1, 500_000))
    market.bid("a", 2_000_000)
    market.bid("b", 2_000_000)
    market.until(11)
    assert ["bid_a", "bid_b"] == market.on_node()
    market.do(WithdrawOffer("off_x", "acct_owner"))
    market.bid("c", 4_000_000)
    for second in range(12, 120):
        market.until(second)
        lent = sum(lease.gpu_count for lease in market.core.leases.values() if lease.state in LEASE_ON_NODE)
        assert lent <= (2 if "off_x" in market.core.offers else 1)
    assert ["bid_c"] == market.on_node()
