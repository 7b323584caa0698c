"""The bot kit: one `Strategy` that runs unchanged live, on paper, over a recording, and in a simulation.

What a mode gives it is a `Desk` to act through and ticks and events to react to; nothing else differs.
`fallow bot --help` runs one; `fallow.kit.strategies` has five to start from.
"""
