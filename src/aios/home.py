"""Where the state of a kernel lies: the files and folders below `AIOS_HOME`."""

import errno
from pathlib import Path

from msgspec import Struct

from aios.errors import ConfigError


class Home(Struct, frozen=True):
    """The folders below `AIOS_HOME`. Nothing is made until it is written to."""

    root: Path

    @property
    def models(self) -> Path:
        """Model files."""
        return self.root / "models"

    @property
    def pages(self) -> Path:
        """KV pages on disk."""
        return self.root / "pages"

    @property
    def contexts(self) -> Path:
        """Snapshots of contexts."""
        return self.root / "contexts"

    @property
    def logs(self) -> Path:
        """Logs of processes."""
        return self.root / "logs"

    @property
    def database(self) -> Path:
        """The tables of the kernel."""
        return self.root / "aios.db"

    @property
    def index(self) -> Path:
        """What was made of the files to find them by; it can be made again."""
        return self.root / "index.db"

    @property
    def blobs(self) -> Path:
        """What is too large for the database."""
        return self.root / "blobs"

    @property
    def link_key(self) -> Path:
        """What links to files are signed with, mode 600."""
        return self.root / "link.key"

    @property
    def audit_key(self) -> Path:
        """What the audit log is chained with, mode 600."""
        return self.root / "audit.key"

    @property
    def env_key(self) -> Path:
        """What environments of programs are sealed with, mode 600."""
        return self.root / "env.key"

    @property
    def secrets(self) -> Path:
        """Secrets that are put into requests of programs, mode 600."""
        return self.root / "secrets.json"

    @property
    def tools(self) -> Path:
        """Manifests of tools that are there from the start, `*.toml`."""
        return self.root / "tools"

    @property
    def policies(self) -> Path:
        """What the owner permits and forbids besides the profile, `*.cedar`."""
        return self.root / "policies"

    @property
    def grants(self) -> Path:
        """What the owner granted to programs, mode 600."""
        return self.root / "policies" / "grants.json"

    @property
    def run(self) -> Path:
        """Socket, lock and addresses of the running kernel."""
        return self.root / "run"

    @property
    def token_file(self) -> Path:
        """The owner's token, mode 600."""
        return self.root / "token"


def not_writable(home: Home, error: OSError) -> ConfigError:
    """The error for a home that nothing can be written to."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ConfigError(
        f"{home.root} cannot be written to: {error.strerror}",
        hint="free space on its disk" if is_full else "set AIOS_HOME to a folder of yours",
    )
