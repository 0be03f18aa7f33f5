"""How the demo tells its story on a terminal, or in a log."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

STEPS = 5


class Telling:
    """Prints the steps of the story, numbered, and what happens in each."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._step = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self._console.print(f"\n[bold cyan]{self._step}/{STEPS}[/]  [bold]{escape(title)}[/]")

    def say(self, text: str) -> None:
        """One line within a step."""
        self._console.print(f"     {escape(text)}")

    def stress(self, text: str) -> None:
        """A line that nobody should miss."""
        self._console.print(f"     [bold]{escape(text)}[/]")
