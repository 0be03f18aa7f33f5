"""``edgeml.Session``: a bundle's artifact, run in this process. Light: it runs on devices too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from edgeml.errors import SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml.bundle import Artifact, Bundle
    from edgeml.targets.runtime import TensorInfo

    Array = NDArray[np.generic]


class Session:
    """The best artifact of a bundle that can run here, opened. A context manager.

    Not for use by two threads at once.

    Args:
        bundle: path of a ``.edgeml`` file. All of it is checked.
        target: a target or an artifact's id (``tflite-int8``): only that.
        threads: of the runtime.

    Raises:
        BundleError: the file is damaged, or no bundle.
        UsageError: the bundle holds nothing of that name, or ``threads`` is below 1.
        RefusedError: nothing in it can run here.
    """

    def __init__(
        self, bundle: str | os.PathLike[str], target: str | None = None, *, threads: int = 1
    ) -> None:
        from edgeml.api.choosing import opened, runnable
        from edgeml.bundle import open_bundle

        if threads < 1:
            raise UsageError(f"threads is {threads}", expected="at least 1")
        self._stack = contextlib.ExitStack()
        self._closed = False
        self.bundle: Bundle = open_bundle(Path(bundle))
        """The open bundle: its manifest, golden vectors and baseline."""
        self.artifact: Artifact = runnable(self.bundle, target)[0][0]
        """The artifact that was chosen."""
        self._session = self._stack.enter_context(
            opened(self.bundle, self.artifact, threads=threads)
        )

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What :meth:`run` takes: names, shapes with a batch axis of 1, dtypes."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What :meth:`run` returns."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, Any] | Any) -> dict[str, Array]:
        """Run one sample.

        Args:
            feeds: an array for each input by name, batch axis of 1 included; or, for a model with
                one input, the array itself. A batch axis that is missing is put in front.

        Returns:
            An array an output, by name, the caller's own.

        Raises:
            SourceError: an input is missing or unknown, or has another shape or dtype.
            UsageError: the session is closed.
        """
        import numpy as np

        if self._closed:
            raise UsageError(
                f"The session of {self.bundle.path.name} is closed", expected="an open one"
            )
        named = cast("Mapping[str, Any]", feeds)
        if not isinstance(feeds, Mapping):
            named = {self.inputs[0].name: feeds}
        ranks = {info.name: len(info.shape) for info in self.inputs}
        arrays: dict[str, Any] = {}
        for name, value in named.items():
            try:
                found: Any = np.asarray(value)
            except ValueError as error:  # a list whose rows are unlike
                raise SourceError(
                    f"Input {name!r} is no array: {error}", expected="numbers of one shape"
                ) from error
            arrays[name] = found[np.newaxis] if found.ndim == ranks.get(name, 0) - 1 else found
        return self._session.run(arrays)

    def close(self) -> None:
        """Let go of the model's memory and files. A second time it does nothing."""
        self._closed = True
        self._stack.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
