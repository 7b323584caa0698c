"""What the command line says about itself: every command for programs and people, completion for shells."""

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import click
from click.shell_completion import get_completion_class

_PARAMETER_FIELDS = (
    "name", "param_type_name", "opts", "secondary_opts", "required", "nargs", "multiple", "default", "envvar",
    "help", "is_flag",
)  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The tree with every option, its type and default.")
@click.pass_context
def commands(context: click.Context, as_json: bool) -> None:
    """List every command there is."""
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    tree = describe(root.command, root) | {"name": "fallow"}
    if as_json:
        click.echo(json.dumps(tree, indent=1))
        return
    rows = [(name, help_text.split("\n")[0]) for name, help_text in _leaves(tree, "")]
    width = max(len(name) for name, _ in rows)
    for name, line in rows:
        click.echo(f"{name:<{width}}  {line}")


def describe(command: click.Command, context: click.Context) -> dict[str, Any]:
    """Return a command, its parameters and its sub-commands as JSON's types."""
    found: dict[str, Any] = {
        "name": context.info_name,
        "help": (command.get_short_help_str(1_000) if command.help is None else command.help).strip(),
        "params": [_parameter(one) for one in command.get_params(context)],
    }
    if isinstance(command, click.Group):
        found["commands"] = []
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            if not inner.hidden:
                with click.Context(inner, parent=context, info_name=name) as within:
                    found["commands"].append(describe(inner, within))
    return found


def _parameter(parameter: click.Parameter) -> dict[str, Any]:
    said = parameter.to_info_dict()
    kept = {name: said.get(name) for name in _PARAMETER_FIELDS if name in said}
    default = parameter.default
    if isinstance(default, PurePath):
        default = str(default)
    # click marks "none was given" with an object of its own.
    kept["default"] = default if isinstance(default, str | int | list | tuple) else None
    kept["type"] = {name: value for name, value in said["type"].items() if _is_json(value)}
    return kept


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | tuple | dict)


def _leaves(tree: dict[str, Any], before: str) -> Iterator[tuple[str, str]]:
    name = f"{before} {tree['name']}".strip()
    if "commands" not in tree:
        yield name, tree["help"]
        return
    for one in tree["commands"]:
        yield from _leaves(one, name)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion for a shell: `eval "$(fallow completion bash)"`."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "fallow", "_FALLOW_COMPLETE").source())
