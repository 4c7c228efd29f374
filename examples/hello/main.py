"""The smallest program: one system call to the model, its answer as the result."""

import aios


def main(client: aios.blocking.Client, *, task: str = "Say hello in one sentence.") -> str:
    """Ask the model one thing."""
    return client.chat(task, max_tokens=80, temperature=0.2).text.strip()


if __name__ == "__main__":
    aios.run(main)
