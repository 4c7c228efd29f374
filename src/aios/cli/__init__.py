"""The command `aios`: thin verbs over the SDK and the server."""

import aios.abi  # noqa: F401 - it imports msgspec without what no command needs
