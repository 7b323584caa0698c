"""The bounds of what may enter a book: one list for the compiled kernel's callers and the reference."""

from matching.types import (
    CHAIN,
    GPU_COUNT_MAX,
    HANDICAP_BPS_MAX,
    HASH_MAX,
    LEVEL_COUNT_MAX,
    NONE,
    SEQ_MAX,
    TICK_MAX,
)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} {value} is outside {low}..{high}")


def check_book(
    handicap_bps: int, level_count: int, refine_below_bids: int, price_position_bps: int | None
) -> None:
    _within("handicap_bps", handicap_bps, 0, HANDICAP_BPS_MAX)
    _within("level_count", level_count, 1, LEVEL_COUNT_MAX)
    _within("refine_below_bids", refine_below_bids, 0, GPU_COUNT_MAX)
    if price_position_bps is not None:
        _within("price_position_bps", price_position_bps, 0, 10_000)


def check_bid(level_count: int, limit: int, gpus: int, min_gpus: int, colocated: bool) -> None:
    _within("limit", limit, 1, level_count)
    _within("gpus", gpus, 1, GPU_COUNT_MAX)
    _within("min_gpus", min_gpus, 1, gpus)
    if colocated and (gpus not in CHAIN or min_gpus != gpus):
        raise ValueError(f"a co-located bid is all or nothing and has one of {CHAIN} GPUs, not {gpus}")


def check_arrival(arrival_tick: int, arrival_hash: int, seq: int) -> None:
    _within("arrival_tick", arrival_tick, 0, TICK_MAX)
    _within("arrival_hash", arrival_hash, 0, HASH_MAX)
    _within("seq", seq, 0, SEQ_MAX)


def check_validity(account: int, valid_until_tick: int) -> None:
    _within("account", account, 0, TICK_MAX)
    _within("valid_until_tick", valid_until_tick, 0, TICK_MAX)


def check_held(held: int) -> None:
    _within("held", held, 0, GPU_COUNT_MAX)


def check_offer(level_count: int, reserve: int, gpus: int) -> None:
    _within("reserve", reserve, 0, level_count)
    _within("gpus", gpus, 1, GPU_COUNT_MAX)


def check_level(level_count: int, level: int) -> None:
    _within("level", level, 0, level_count)


def check_place(node: int, domain: int) -> None:
    _within("node", node, NONE, GPU_COUNT_MAX)
    _within("domain", domain, NONE, GPU_COUNT_MAX)
