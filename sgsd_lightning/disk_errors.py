"""What the system says when nothing more can be written."""

from __future__ import annotations

import errno

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def reason(error: OSError) -> str:
    """The system's words, plainer where the disk or a quota is full."""
    is_full = error.errno in DISK_FULL
    return "the disk is full, or a limit on file size is reached" if is_full else error.strerror or str(error)
