"""`trioq cluster`: which brokers there are."""

from __future__ import annotations

import click

from trioq.cli.app import CONTEXT_SETTINGS
from trioq.cli.output import json_option, print_json, print_table
from trioq.cli.target import broker_options, target


@click.group(context_settings=CONTEXT_SETTINGS)
@broker_options
def cluster() -> None:
    """Describe the cluster."""


@cluster.command()
@json_option
@broker_options
@click.pass_context
def describe(ctx: click.Context, as_json: bool) -> None:
    """Describe the cluster: its id, its controller, its brokers."""
    from trioq.cli.running import ask  # noqa: PLC0415  help needs no client

    found = ask(target(ctx), lambda client: client.admin.describe_cluster())
    if as_json:
        print_json(
            {
                "cluster_id": found.cluster_id,
                "controller_id": found.controller_id,
                "brokers": [
                    {
                        "id": node.node_id,
                        "host": node.address.host,
                        "port": node.address.port,
                        "rack": node.rack,
                    }
                    for node in found.brokers
                ],
            }
        )
        return
    print_table(
        f"cluster {found.cluster_id}  brokers: {len(found.brokers)}",
        ["broker", "host", "port", "rack", "controller"],
        [
            (
                node.node_id,
                node.address.host,
                node.address.port,
                node.rack,
                node.node_id == found.controller_id,
            )
            for node in found.brokers
        ],
    )
