"""The tables of the kernel's database, of all rooms together."""

from aios.disk.blobs import SCHEMA as BLOBS
from aios.kernel.approvals.tables import SCHEMA as APPROVALS
from aios.kernel.forking.checkpoint_tables import SCHEMA as CHECKPOINTS
from aios.kernel.forking.tables import SCHEMA as BRANCHES
from aios.kernel.journal.audit.tables import SCHEMA as AUDIT
from aios.kernel.journal.streams import SCHEMA as STREAMS
from aios.kernel.journal.tables import SCHEMA as JOURNAL
from aios.kernel.mail.tables import SCHEMA as MAIL
from aios.kernel.memory.interactions import SCHEMA as INTERACTIONS
from aios.kernel.memory.schema import SCHEMA as MEMORY
from aios.kernel.memory.words import register
from aios.kernel.residents import SCHEMA as RESIDENTS
from aios.kernel.storage.links import Links
from aios.kernel.storage.mount_tables import SCHEMA as MOUNTS
from aios.kernel.storage.tables import SCHEMA as STORAGE
from aios.kernel.storage.workspace_tables import SCHEMA as WORKSPACES
from aios.kernel.timers.tables import SCHEMA as TIMERS
from aios.kernel.tools.mcp.pins import SCHEMA as MCP

SCHEMAS = (
    BLOBS,
    STORAGE,
    MOUNTS,
    WORKSPACES,
    Links.SCHEMA,
    MEMORY,
    INTERACTIONS,
    JOURNAL,
    STREAMS,
    AUDIT,
    RESIDENTS,
    MAIL,
    TIMERS,
    BRANCHES,
    CHECKPOINTS,
    MCP,
    APPROVALS,
)
PREPARE = (register,)
"""What each connection to it is given."""
