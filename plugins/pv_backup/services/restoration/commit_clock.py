"""When the last commit in the shipped WAL was made: no later target is reached, and PostgreSQL says so too late."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pv_backup.services.postgres import Server
from pv_backup.services.restoration.tools import Place
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.writing import writing
from pv_backup.services.wal import SegmentName, format_lsn

_ENDED: Final = re.compile(r"desc: (?:COMMIT|ABORT)(?:_PREPARED)? .*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")


class WalCommitClock:
    """Reads segments with pg_waldump, from one end of what is there, until one has a commit.

    :param tools: whose `pg_waldump` to use.
    :param staging: where segments may lie in clear for a moment.
    :param place: the disk that it is on, None: its own.
    """

    def __init__(self, archive: WalArchive, *, tools: Server, staging: Path, place: Place | None = None) -> None:
        self._archive = archive
        self._tools = tools
        self._staging = staging
        self._place = place or Place(staging)

    def __call__(self, segments: Sequence[SegmentName]) -> datetime | None:
        """The time of the last commit or abort, by the clock of the server that made it.

        :raises RestoreFailed: (StagingFull in a staging directory) if the disk has no room for a segment.
        :raises IntegrityError: naming the object, if one is damaged.
        """
        with writing("WAL", self._place), TemporaryDirectory(prefix="commits-", dir=self._staging) as folder:
            # A long load may have made hundreds of segments without a commit: two of them lie there at a time.
            following: SegmentName | None = None
            for segment in reversed(segments):
                self._archive.fetch(str(segment), Path(folder, str(segment)))
                # The last record of a segment may end in the one after it.
                both = [segment, following] if following and following.timeline == segment.timeline else [segment]
                if times := self._ends(Path(folder), both):
                    return max(times)
                if following:
                    Path(folder, str(following)).unlink()
                following = segment
        return None

    def first(self, segments: Sequence[SegmentName], *, since_lsn: int) -> datetime | None:
        """The time of the first commit or abort that is not before an LSN, which is in the first of the segments.

        :raises RestoreFailed, IntegrityError: as above.
        """
        with writing("WAL", self._place), TemporaryDirectory(prefix="commits-", dir=self._staging) as folder:
            start = [f"--start={format_lsn(since_lsn)}"]
            for segment, following in zip_longest(segments, segments[1:]):
                both = [segment, following] if following and following.timeline == segment.timeline else [segment]
                for each in both:
                    if not (path := Path(folder, str(each))).exists():
                        self._archive.fetch(str(each), path)
                if times := self._ends(Path(folder), both, *start):
                    return min(times)
                Path(folder, str(segment)).unlink()
                start = []
        return None

    def _ends(self, folder: Path, segments: Sequence[SegmentName], *options: str) -> list[datetime]:
        # No limit of time: a segment may have 1 GiB, and the caller's step has a limit of its own.
        # Its exit status is 1 at the end of what it was given: a record that goes on in a file that it does not have.
        answer = subprocess.run(
            [self._tools.tool("pg_waldump"), "--rmgr=Transaction", f"--path={folder}", *options, *map(str, segments)],
            env={"LC_ALL": "C", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        )
        return [datetime.fromisoformat(f"{time}+00:00") for time in _ENDED.findall(answer.stdout)]
