"""How SIGTERM ends a program, also in the middle of a tool."""

EXIT_TERMINATED = 143


class Terminated(SystemExit):
    """SIGTERM came. Any other `SystemExit` of a tool is its failure; this one ends the program."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)
