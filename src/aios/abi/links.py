"""The calls about links: a version of a file, for whoever has the link, until it expires. The kernel's own server answers them."""

from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.storage import FilePath, VersionNumber

LinkId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
LINK_ROUTE = "/aios/files/"


class LinkInfo(Struct, frozen=True):
    """A link. `token` is the secret part of its address, `/aios/files/TOKEN`; it is told once, to who makes the link."""

    id: LinkId
    path: str
    version: VersionNumber
    expires_unix_s: float
    token: str = ""


class LinkInfos(Answer, frozen=True):
    """Links, the next to expire first."""

    links: tuple[LinkInfo, ...]


class FileLink(Call[LinkInfos], frozen=True, tag="file_link"):
    """Make a link to a version of a file, None for the one that it has now, which works for `lifetime_s` seconds.

    It is bound to that version: what is written later is not seen by it. It ends with its time, by `FileUnlink`, or when the version is purged.

    Raises:
        AccessDenied: The path is not the caller's own.
        NotFound: There is no such file or version.
        ResourceExhausted: The caller has `storage.max_links`.
    """

    path: FilePath
    lifetime_s: Annotated[float, Meta(gt=0, le=365 * 86_400)] = 3600.0
    version: VersionNumber | None = None


class FileUnlink(Call[Done], frozen=True, tag="file_unlink"):
    """End a link at once.

    Raises:
        NotFound: The caller has no such link.
    """

    id: LinkId


class FileLinks(Call[LinkInfos], frozen=True, tag="file_links"):
    """List the links to files of the caller's that have not expired."""
