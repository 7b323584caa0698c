"""`fallow bot`: run a strategy in any of the four modes, record a market, report on a run.

Exit codes: 0 ok, 1 the strategy raised (its traceback is printed), 2 usage, 3 refused, 4 auth, 5 unavailable.
"""

import inspect
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fallow.kit.strategy import Strategy

EXIT_RAISED = 1
SHOWN_AFTER_SECONDS = 1.0
OPTIONS_MAX = 32

OutFile = click.Path(dir_okay=False, path_type=Path)
InFile = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bot() -> None:
    """Run a bot live, on paper, over a recording, or in a simulation: the same class each time.

    \b
    fallow bot run fixed_limit --mode sim --market h100-sxm.us -O gpus=2 -O limit=2.40
    fallow bot record --market h100-sxm.us --out day.ndjson --ticks 8640
    fallow bot run deadline --mode replay --file day.ndjson -O gpu_hours=40 -O max_spend=90 --log run.ndjson
    fallow bot report run.ndjson

    \b
    A bot of your own is a class in a module that Python finds (`my_bots:Patient`):
        from fallow import Strategy
        class Patient(Strategy):
            def on_tick(self, tick):
                if not self.desk.bids():
                    self.desk.place(gpus=1, limit="1.50")
    """


@bot.command("run")
@click.argument("strategy")
@click.option("--mode", type=click.Choice(["live", "paper", "replay", "sim"]), required=True,
              help="live: your account. paper: real ticks, orders cleared here. replay: a recording. "
              "sim: a seeded crowd.")  # fmt: skip
@click.option("--market", help="The market; of a replay it is the recorded one.")
@click.option("-O", "--option", "options", multiple=True, metavar="NAME=VALUE", help="Of the strategy.")
@click.option("--run", "name", help="The run's name. Live, a bot that starts again under it goes on with "
              "its bids. [default: the strategy and the market]")  # fmt: skip
@click.option("--ticks", type=click.IntRange(min=1), help="Stop after so many. [sim: 1440]")
@click.option("--file", type=InFile, help="The recording to replay.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated crowd.")
@click.option("--money", default="100000", show_default=True, help="Dollars; not live.")
@click.option("--on-exit", type=click.Choice(["cancel", "leave"]), default="leave", show_default=True,
              help="Live, what becomes of the bids, however the run ends.")  # fmt: skip
@click.option("--log", type=OutFile, help="Keep the run for `fallow bot report`.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.option("--server", envvar="FALLOW_URL", default="http://127.0.0.1:8080", show_default=True)
@click.option("--key", envvar="FALLOW_KEY", help="Your key, live. [env: FALLOW_KEY]")
def bot_run(strategy: str, mode: str, options: tuple[str, ...], **given: Any) -> None:
    """Run STRATEGY and report what it came to.

    STRATEGY is MODULE:CLASS or one of these, with their options:

    \b
    fixed_limit        gpus limit
    hold_target        gpus limit [min_gpus max_spend]
    budget_pace        spend_per_day limit [gpus]
    deadline           gpu_hours max_spend [within_hours|ends_at gpus limit]
    follow_percentile  gpus max_limit [percentile window_ticks]

    It ends when the strategy stops, after --ticks, at the end of the recording, or by Ctrl-C and SIGTERM.
    """
    from fallow.kit.record import Interval, RunLog, Writer
    from fallow.kit.report import report

    made = make_strategy(strategy, options)
    market, file = given["market"], given["file"]
    if (mode == "replay") is not (file is not None) or (mode == "replay") is (market is not None):
        raise click.UsageError("--mode replay wants --file, every other mode --market")
    name = given["name"] or f"{strategy.rpartition(':')[2]}-{market or file.stem}"[:48]
    rows: list[RunLog | Interval] = []
    with _kept(given["log"]) as path:
        writer: Writer | None = None

        def log(row: RunLog | Interval) -> None:
            nonlocal writer
            rows.append(row)
            if path is not None:
                if writer is None:
                    assert isinstance(row, RunLog)
                    writer = Writer(path, row)
                else:
                    writer.write(row)

        with _ending():
            _run(made, mode, name, log, given)
    if not rows:
        raise click.UsageError(f"{file} has no ticks")
    head, *intervals = rows
    assert isinstance(head, RunLog)
    _show(report(head, [row for row in intervals if isinstance(row, Interval)]), given["output"])


@bot.command("record")
@click.option("--market", required=True)
@click.option("--out", type=OutFile, required=True, help="NDJSON; an existing file is not overwritten.")
@click.option("--ticks", type=click.IntRange(min=1), help="Stop after so many. [default: Ctrl-C]")
@click.option("--bytes-max", type=click.IntRange(min=1), default=1 << 30, show_default=True)
@click.option("--server", envvar="FALLOW_URL", default="http://127.0.0.1:8080", show_default=True)
def bot_record(market: str, out: Path, ticks: int | None, bytes_max: int, server: str) -> None:
    """Record a market's public ticks with their curves, for `--mode replay`. Needs no key."""
    from fallow.client import Client
    from fallow.kit.live import frames_of
    from fallow.kit.record import FORMAT, Recording, Writer

    with _ending(), Client(server) as client:
        head = Recording(FORMAT, client.market(market))
        with _created(out) as file, _progress("ticks", ticks) as progress:
            writer = Writer(file, head, bytes_max=bytes_max)
            for count, frame in enumerate(frames_of(client, market), 1):
                writer.write(frame)
                progress(count)
                if writer.is_full or count == ticks:
                    break
            if writer.is_full:
                click.echo(f"fallow: {out} is full ({bytes_max} bytes)", err=True)


@bot.command("report")
@click.argument("file", type=InFile)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def bot_report(file: Path, output: str) -> None:
    """Say what a run cost and bought, and its share of the best possible in hindsight.

    best_cost is what the same GPU-hours would have cost at least: bought in the cheapest of the same ticks,
    at the price that clearing gives with that demand. share_of_best is best_cost / cost. agreeing_share says
    in how many recorded ticks clearing again without the bot gives the recorded price (near_share: within
    1 %): how far a replay can be believed. price_impact is what the bot's own bids put on the price.
    """
    from fallow.kit.record import read_run
    from fallow.kit.report import report

    with _ending():
        head, intervals = read_run(file)
        _show(report(head, intervals), output)


def make_strategy(name: str, options: tuple[str, ...]) -> "Strategy":
    """Make a strategy from its name and `name=value` options. Raises click.UsageError."""
    from fallow.kit.strategies import STRATEGIES
    from fallow.kit.strategy import Strategy

    module, colon, attribute = name.partition(":")
    if colon:
        sys.path.insert(0, "")  # a module of the working directory, as `python -m` finds it
        try:
            kind = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise click.UsageError(f"{name}: {error}") from None
    else:
        kind = STRATEGIES.get(name)
    if not (inspect.isclass(kind) and issubclass(kind, Strategy)):
        raise click.UsageError(f"{name!r} is no strategy; there are MODULE:CLASS and {', '.join(STRATEGIES)}")
    if len(options) > OPTIONS_MAX:
        raise click.UsageError(f"at most {OPTIONS_MAX} options")
    return _build(kind, options)


def _build(kind: "type[Strategy]", options: tuple[str, ...]) -> "Strategy":
    import msgspec

    known = inspect.signature(kind, eval_str=True).parameters
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in known:
            raise click.UsageError(
                f"-O {option}: expected NAME=VALUE with one of {', '.join(known) or 'none'}"
            )
        wanted = known[name].annotation
        try:
            values[name] = (
                text if wanted is inspect.Parameter.empty else msgspec.convert(text, wanted, strict=False)
            )
        except msgspec.ValidationError as error:
            raise click.UsageError(f"-O {option}: {error}") from None
    missing = [
        name for name, one in known.items() if one.default is inspect.Parameter.empty and name not in values
    ]
    if missing:
        raise click.UsageError(f"{kind.__name__} also wants {' '.join(f'-O {name}=…' for name in missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _run(
    strategy: "Strategy", mode: str, run: str, log: Callable[[Any], None], given: dict[str, Any]
) -> None:
    """Run in a mode; a traceback of the strategy's own is printed and ends the process with 1."""
    from fallow.client import Client, FallowError
    from fallow.kit import live, runner
    from fallow.kit.record import WrongFileError, read_recording

    market, ticks = given["market"], given["ticks"]
    total = ticks if mode != "sim" else ticks or 1_440
    try:
        with _progress("ticks", total) as progress:
            if mode == "sim":
                runner.simulate(
                    strategy, market, run=run, log=log, seed=given["seed"], ticks=total,
                    money=given["money"], progress=progress,
                )  # fmt: skip
            elif mode == "replay":
                head, frames = read_recording(given["file"])
                runner.replay(
                    strategy, head.market, frames, run=run, log=log, money=given["money"],
                    ticks_max=ticks, progress=progress,
                )  # fmt: skip
            else:
                with Client(given["server"], key=given["key"]) as client:
                    if mode == "paper":
                        live.run_paper(
                            strategy, client, market, run=run, log=log, money=given["money"],
                            ticks_max=ticks, progress=progress,
                        )  # fmt: skip
                    else:
                        live.run_live(
                            strategy, client, market, run=run, log=log, ticks_max=ticks, progress=progress,
                            cancels_on_exit=given["on_exit"] == "cancel",
                        )  # fmt: skip
    except (FallowError, WrongFileError):
        raise
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_RAISED)


@contextmanager
def _ending() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what runs in order, and turn a no into its exit code."""
    from fallow.client import AuthError, ProblemError, UnavailableError
    from fallow.command import EXIT_AUTH, EXIT_REFUSED, EXIT_UNAVAILABLE
    from fallow.kit.record import WrongFileError

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with suppress(KeyboardInterrupt):
            yield
    except (WrongFileError, FileExistsError) as error:
        raise click.UsageError(str(error)) from None
    except AuthError as error:
        _fail(error, EXIT_AUTH)
    except ProblemError as error:
        _fail(error, EXIT_REFUSED)
    except UnavailableError as error:
        _fail(error, EXIT_UNAVAILABLE)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error once it has taken a second; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task(what, total=total)

    def told(count: int) -> None:
        bar.update(task, completed=count)
        if (bar.tasks[0].elapsed or 0) > SHOWN_AFTER_SECONDS:
            bar.start()

    bar.start_task(task)
    try:
        yield told
    finally:
        bar.stop()


@contextmanager
def _kept(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield None
        return
    with _created(path) as file:
        yield file


@contextmanager
def _created(path: Path) -> Iterator[Any]:
    try:
        file = path.open("xb")
    except FileExistsError:
        raise click.UsageError(f"{path} exists; it is not overwritten") from None
    except OSError as error:
        raise click.UsageError(str(error)) from None
    with file:
        yield file


def _show(found: Any, output: str) -> None:
    import msgspec

    if output == "json":
        click.echo(msgspec.json.encode(found))
        return
    values = {name: getattr(found, name) for name in found.__struct_fields__}
    width = max(map(len, values))
    for name, value in values.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")


def _fail(error: Exception, code: int) -> None:
    click.echo(f"fallow: {error}", err=True)
    sys.exit(code)
