"""The figures of one scenario of the replay as text for people."""

from typing import Any

from bench.openb_figures import Figures


def render(name: str, result: Figures) -> str:
    """Write the table of one scenario."""
    figures, totals = result["figures"], result["figures"]["totals"]
    lines = [f"== scenario {name} ==", *_markets(figures["markets"]), "", *_demand(figures)]
    lines += [
        _line("virtual days", f"{result['virtual_days']:.1f}"),
        _line("GPU-hours", f"{totals['gpu_hours']:,.0f}"),
        _line(
            "  owners' own work", f"{totals['owner_gpu_hours']:,.0f}  {_share(totals['owner_of_all'])} of all"
        ),
        _line(
            "  sold (else idle)",
            f"{totals['sold_gpu_hours']:,.0f}  {_share(totals['sold_of_offered'])} of offered",
        ),
        _line("  used", f"{_share(totals['used_of_all'])} of all"),
        _line("revenue", _revenue(totals)),
        _line(
            "  at list price",
            f"${totals['list_value_usd']:,.2f}; charged {_share(totals['charged_of_list'])} of it",
        ),
        _line(
            "clearing price", f"{_share(totals['mean_price_of_list'])} of list (mean of ticks that traded)"
        ),
        *_events(figures),
        *_engine(figures["engine"], result["wall_s"]),
        _line("audit", _audit(result["audit"])),
        _line("result hash", result["hash"]),
    ]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return f"{label:<26} {text}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _markets(markets: dict[str, Figures]) -> list[str]:
    header = ("model", "nodes", "GPUs", "owner GPU-h", "sold GPU-h", "sold/offered", "list $", "charged/list")
    lines = ["{:<9}{:>6}{:>7}{:>13}{:>12}{:>14}{:>9}{:>14}".format(*header)]
    for model, market in markets.items():
        offered = market["gpu_hours"] - market["owner_gpu_hours"]
        listed = market["list_value_usd"]
        charged = _share(market["charged_usd"] / listed if listed else None)
        lines.append(
            f"{model:<9}{market['nodes']:>6,}{market['gpus']:>7,}{market['owner_gpu_hours']:>13,.0f}"
            f"{market['sold_gpu_hours']:>12,.0f}{_share(market['sold_gpu_hours'] / offered):>14}"
            f"{market['list_price_usd']:>9.4f}{charged:>14}"
        )
    return lines


def _demand(figures: Figures) -> list[str]:
    pods = figures["pods"]
    dropped = {name: pods[name] for name in sorted(pods) if name.startswith("dropped_")}
    lines = [
        _line("pods in the trace", f"{pods['pods_in_trace']:,}"),
        _line("  dropped", ", ".join(f"{name[8:]} {number:,}" for name, number in dropped.items()) or "none"),
    ]
    for name, label in (("bids", "  bids"), ("owner_tasks", "  owners' own")):
        part = pods[f"{name}_gpu_hours_of_part_of_a_gpu"] / max(1e-9, pods[f"{name}_gpu_hours"])
        lines.append(
            _line(
                label,
                f"{pods.get(name, 0):,} asking {pods[f'{name}_gpu_hours']:,.0f} GPU-hours; "
                f"{pods.get(f'{name}_of_part_of_a_gpu', 0):,} want part of a GPU "
                f"({_share(part)} of the hours)",
            )
        )
    return lines


def _revenue(totals: Figures) -> str:
    return (
        f"${totals['charged_usd']:,.2f} charged = ${totals['owners_net_usd']:,.2f} to owners "
        f"+ ${totals['fee_usd']:,.2f} fee"
    )


def _events(figures: Figures) -> list[str]:
    rates, notices = figures["preemptions_per_1000_gpu_hours"], figures["notices"]
    tenants, owners = figures["tenants"], figures["owners"]
    by_reason = ", ".join(f"{reason} {rate:,.1f}" for reason, rate in rates.items())
    return [
        _line("preemptions / 1,000 GPU-h", f"{sum(rates.values()):,.1f} ({by_reason})"),
        _line(
            "notices",
            f"{notices['issued']:,} issued, {notices['withdrawn']:,} withdrawn; "
            f"honoured {_share(notices['honoured_share'])} ({notices['broken']} broken)",
        ),
        _line(
            "bids",
            f"{tenants['bids']:,}: {tenants['started']:,} started, {tenants['completed']:,} completed, "
            f"{tenants['below_every_reserve']:,} below every reserve; "
            f"{_share(tenants['work_done'])} of the work, "
            f"{_share(tenants['sold_that_was_work'])} of the hours sold",
        ),
        _line("  wait to start", _seconds(tenants["wait_s"])),
        _line(
            "owners' own tasks",
            f"{owners['tasks_started']:,} started, {_share(owners['started_at_once'])} at once, "
            f"{owners['tasks_never_started']:,} never",
        ),
        _line("  wait to start", _seconds(owners["wait_s"])),
        _line(
            "  recalled from tenants",
            f"{owners['offers_recalled_from_a_tenant']:,} GPUs; from recall to start "
            f"{_seconds(owners['wait_for_tenants_s']) or '-'}; "
            f"{owners['starts_that_found_the_gpu_occupied']:,} starts found the GPU occupied",
        ),
    ]


def _seconds(quantiles: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,.0f} s" for name, value in quantiles.items() if value is not None)


def _engine(engine: Figures, wall_s: float) -> list[str]:
    beat = ", ".join(f"{name} {value:.2f}" for name, value in engine["beat_ms"].items())
    return [
        _line(
            "engine",
            f"{engine['ticks']:,} ticks in {engine['beats']:,} beats, {engine['commands']:,} commands; "
            f"{wall_s:.0f} s wall, {engine['ticks'] / wall_s:,.0f} ticks/s",
        ),
        _line("  beat (all markets), ms", f"{beat}; mean of a tick {engine['tick_ms_mean']:.3f}"),
        _line(
            "  commits",
            f"{engine['commits']:,} in {engine['commit_s']:.1f} s: "
            f"{engine['entries_per_commit_second']:,.0f} commands/s, "
            f"{engine['rows_per_commit_second']:,.0f} rows/s",
        ),
        _line("  refused", ", ".join(f"{code} {n:,}" for code, n in engine["rejections"].items()) or "none"),
    ]


def _audit(audit: Figures) -> str:
    verdict = "; ".join(audit["failed"]) or f"all {audit['checks']} checks ok"
    noted = "".join(f"; noted {name} {number:,}" for name, number in audit["noted"].items())
    return f"{verdict}, {audit['rows']:,} rows in {audit['elapsed_s']:.1f} s{noted}"
