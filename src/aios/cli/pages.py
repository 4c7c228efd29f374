"""The verb `pages`: what the page stores hold."""

import click

from aios.abi.pages import PageStoreInfo
from aios.abi.types import EngineState
from aios.cli.connecting import connect
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, short_count, short_size, write_json


@click.command(epilog=examples("aios pages", "aios pages --json | jq .n_on_disk"))
@json_option
def pages(*, as_json: bool) -> None:
    """Show the stores of KV pages: what is in memory and on disk, and how often a page was found.

    A page holds what the model has computed of some tokens of a prompt; equal beginnings of prompts share pages.
    """
    with connect() as client:
        stores = client.pages()
        loading = [each for each in client.info().engines if each.state is EngineState.LOADING]
    if as_json:
        for store in stores:
            write_json(store)
        return
    for engine in loading:
        told = f"engine {engine.name} is loading; it opens its page store when it is ready"
        click.echo(printable(told), err=True)
    if not stores and not loading:
        click.echo("no engine has a page store", err=True)
    for at, store in enumerate(stores):
        if at:
            click.echo()
        for name, value in _rows(store):
            click.echo(f"{click.style(f'{name:<10}', bold=True)}{printable(value)}")


def _rows(store: PageStoreInfo) -> list[tuple[str, str]]:
    def size(n_pages: int) -> str:
        return (
            f"{counted(n_pages, 'page', is_short=True)}, {short_size(n_pages * store.page_bytes)}"
        )

    asked = store.n_hits + store.n_misses
    share = f" ({100 * store.n_hits / asked:.0f} %)" if asked else ""
    found = f"{short_count(store.n_hits)} of {short_count(asked)}{share}"
    return [
        ("model", store.fingerprint),
        ("page", f"{store.page_tokens} tokens, {short_size(store.page_bytes)}"),
        ("memory", f"{size(store.n_resident)} of {short_size(store.budget_bytes)}"),
        ("frames", f"{short_count(store.n_frames)}, {store.n_in_use} in use now"),
        ("disk", f"{size(store.n_on_disk)} of {short_size(store.disk_budget_bytes)}"),
        (
            "pinned",
            f"{counted(store.n_pinned, 'page', is_short=True)} by {counted(store.n_pins, 'pin')}",
        ),
        ("found", f"{found}, {short_count(store.n_read_from_disk)} read from disk"),
        (
            "gaps",
            f"{store.n_expected} expected, {store.n_fetched} fetched, {store.n_paged_out} paged out",
        ),
        ("added", f"{short_count(store.n_added)}, {short_count(store.n_evicted)} evicted"),
        ("damaged", f"{store.n_damaged}, {store.n_failed_writes} could not be written"),
    ]
