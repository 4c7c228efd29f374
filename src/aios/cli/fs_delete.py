"""Delete a folder, whatever is in it."""

from collections.abc import Iterator

from aios.abi.storage import Delete, Edited
from aios.errors import TooLarge
from aios.sdk.blocking import Client

PART_FILES = 1_000
"""Of one call, which may not hold more edits."""


def delete_all(client: Client, path: str, message: str) -> Iterator[Edited]:
    """Delete a file, or a folder with all below it: in one call, or in parts if that is too much for one."""
    try:
        whole = client.files.delete(path, message=message)
    except TooLarge:
        files = client.files.list(path, is_deep=True)
        for at in range(0, len(files), PART_FILES):
            part = [Delete(each.path) for each in files[at : at + PART_FILES]]
            yield client.files.edit(part, message=message)
    else:
        yield whole
