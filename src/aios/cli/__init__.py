"""The command `aios`: thin verbs over the SDK and the server."""
