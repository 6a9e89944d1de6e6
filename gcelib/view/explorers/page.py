"""What explorers share: settings, their page, its picture, and the file of it."""

from __future__ import annotations

import base64
import copy
import html
import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import anywidget
import traitlets
from matplotlib.figure import Figure

from gcelib._check import fail, known_keys
from gcelib.view import alt, bundle

#: Bytes of a saved file, and of the images in a notebook's output.
MOST_IN_FILE = 12_000_000
MOST_IMAGES_IN_OUTPUT = 1_000_000

Answer: TypeAlias = dict[str, Any]


class Setting(traitlets.TraitType[Any, Any]):
    """A trait shared with the browser; ``check`` returns the value or refuses it."""

    def __init__(self, default: object, check: Callable[[Any, Any], object]) -> None:
        super().__init__(default)
        self._check = check
        self.tag(sync=True)

    def validate(self, obj: object, value: object) -> object:
        """What ``check`` makes of the value."""
        return self._check(obj, value)


class Explorer(anywidget.AnyWidget):
    """Settings, their page, and its picture. Children say what the page holds."""

    _esm = bundle.script("link")
    kind: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]
    key = traitlets.Unicode().tag(sync=True)  # by which the page finds this object
    reply = traitlets.Dict().tag(sync=True)  # of a kernel that has to answer

    def __init__(self, **settings: object) -> None:
        known_keys("settings", settings, self.settings)
        super().__init__(key=uuid.uuid4().hex, **settings)

    @property
    def question(self) -> dict[str, Any]:
        """The present settings, as the browser asks them."""
        return {name: copy.deepcopy(getattr(self, name)) for name in self.settings}

    def _content(self, image_bytes: int) -> dict[str, object]:
        """What the page's script reads, with at most so many bytes of images."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The present state as a matplotlib figure."""
        raise NotImplementedError

    def _html(self, picture: tuple[bytes, str], image_bytes: int) -> str:
        """The page's piece."""
        common = {"kind": self.kind, "key": self.key, "settings": self.question}
        content = {**common, **self._content(image_bytes)}
        return bundle.fragment(content, *picture, bundle.script("explorer"))

    def _picture(self) -> tuple[bytes, str]:
        """The figure for where no script runs: PNG, and its description."""
        figure = self.figure()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
        return file.getvalue(), alt.description(figure)

    def _repr_mimebundle_(
        self, **kwargs: object
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A page's piece and a picture: no reference to a kernel that may be gone."""
        picture = self._picture()
        name = type(self).__name__
        data = {
            "text/plain": f"{name}: interactive where scripts run, a picture elsewhere",
            "text/html": self._html(picture, MOST_IMAGES_IN_OUTPUT),
            "image/png": base64.b64encode(picture[0]).decode(),
        }
        return data, {"image/png": {"alt": picture[1]}}

    def save(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """Write one HTML file that needs no network, no kernel and no other file.

        Parameters
        ----------
        path : path
            Ends in ``.html``; an existing file is replaced.
        title : str, optional
            Shown on top of the page.

        Returns
        -------
        Path
            Where the file is; at most 12 MB.

        Raises
        ------
        ValueError
            If the logits alone are more than that, or more than a page answers from, or
            ``path`` is no HTML file.

        Examples
        --------
        >>> from gcelib import PropernessExplorer
        >>> PropernessExplorer().save("/nowhere/x.txt")
        Traceback (most recent call last):
        ...
        ValueError: path: '/nowhere/x.txt' does not end in .html; name an HTML file
        """
        if Path(path).suffix.lower() not in (".html", ".htm"):
            fail("path", f"{str(path)!r} does not end in .html", "name an HTML file")
        self._refuse_to_leave_a_kernel()
        picture = self._picture()
        bare = len(self._html(picture, 0))
        room = MOST_IN_FILE - bare - 1000
        if room < 0:
            problem = f"the page would take {bare / 1e6:.0f} MB, at most 12 are sent"
            fail("save", problem, "pass fewer runs, or a sample of the test set")
        heading = html.escape(title or self._title(), quote=False)
        # base64 makes four bytes of three
        return bundle.write_page(path, heading, [self._html(picture, room * 3 // 4)])

    def _refuse_to_leave_a_kernel(self) -> None:
        """Refuse a file of its own where only a kernel can answer."""

    def _title(self) -> str:
        """The heading of a saved page."""
        raise NotImplementedError
